// What services tell on the diagnostics channels.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { channelName, type TelemetryEvent } from '../../src/kernel/telemetry.ts'
import { onBothStores } from '../support/services.ts'
import { rejectionOf, until } from '../support/wait.ts'

/** Collects events until it is disposed. */
function collect(...names: TelemetryEvent[]) {
  const events: [string, Record<string, unknown>][] = []
  const undo = names.map((name) => {
    const heard = (data: unknown) => void events.push([name, data as Record<string, unknown>])
    subscribe(channelName(name), heard)
    return () => unsubscribe(channelName(name), heard)
  })
  return { events, [Symbol.dispose]: () => undo.forEach((stop) => void stop()) }
}

onBothStores('telemetry - a process that comes and goes, and the calls that it serves', async (w) => {
  using told = collect('process', 'serve')
  const { services, service } = await w.serve('sums')
  service.on('add', (a: number, b: number) => a + b)
  service.on('fail', () => {
    throw new Error('no')
  })
  const sums = services.require('sums')
  await sums.emit('add', 1, 2)
  await rejectionOf(sums.emit('fail'))
  await services.unregister('sums')
  const process = services.id
  await until(() => told.events.length >= 4, { what: 'the events' })
  assert.deepEqual(
    told.events.map(([name, { ms: _, id: __, ...data }]) => [name, data]),
    [
      ['process', { service: 'sums', process, up: true }],
      ['serve', { service: 'sums', handler: 'add', failed: false }],
      ['serve', { service: 'sums', handler: 'fail', failed: true }],
      ['process', { service: 'sums', process, up: false }],
    ],
  )
})
