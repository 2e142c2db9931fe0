// What the bus tells on the diagnostics channels.

import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { channelName, type TelemetryEvent } from '../../src/kernel/telemetry.ts'
import { onBothStores } from '../support/bus.ts'
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

onBothStores(
  'telemetry - a queue is attached, messages are pushed and handed over, and it is closed',
  async (w) => {
    using told = collect('attachment', 'push', 'deliver')
    const queue = w.open().queue('q')
    await queue.attach({ maxsize: 1 })
    await queue.push(1)
    await rejectionOf(queue.push(2))
    await queue.consume({ reliable: true })
    await until(() => told.events.some(([name]) => name === 'deliver'), { what: 'the message' })
    await queue.stop()
    await queue.detach()
    await queue.attach()
    await queue.close()
    assert.deepEqual(
      told.events.map(([name, { ms: _, error: __, ...data }]) => [name, data]),
      [
        ['attachment', { queue: 'q', change: 'attached' }],
        ['push', { queue: 'q', messages: 1, pushed: 1 }],
        ['push', { queue: 'q', messages: 1, pushed: 0 }],
        ['deliver', { queue: 'q', id: 1, redelivered: 0 }],
        ['attachment', { queue: 'q', change: 'detached' }],
        ['attachment', { queue: 'q', change: 'attached' }],
        ['attachment', { queue: 'q', change: 'closed' }],
      ],
    )
  },
)

onBothStores('telemetry - the instances of a bus', async (w) => {
  using told = collect('instance')
  const bus = w.open()
  await bus.connect()
  const [[, first] = []] = told.events
  assert.equal(first?.['up'], true)
  assert.equal(typeof first?.['instance'], 'string')
})

onBothStores(
  'U1 context - a listener runs in the context in which it was added, a consumption in none',
  async (w) => {
    const storage = new AsyncLocalStorage<string>()
    const queue = w.open().queue('q')
    await queue.attach()
    const seen: (string | undefined)[] = []
    storage.run('listener', () => queue.on('message', () => seen.push(storage.getStore())))
    await storage.run('consumer', () => queue.consume())
    await storage.run('producer', () => queue.push(1))
    await until(() => seen.length === 1, { what: 'the message' })
    assert.deepEqual(seen, ['listener'])
  },
)
