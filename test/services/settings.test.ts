// Settings of a service, and the events of a Services object.

import assert from 'node:assert/strict'
import { hostname } from 'node:os'
import { OverloadedError } from '../../src/errors.ts'
import type { ServingInfo } from '../../src/services/index.ts'
import { onBothStores } from '../support/services.ts'
import { soon, until } from '../support/wait.ts'

onBothStores('settings - get, set and remove, by the service and its callers', async (w) => {
  const { service } = await w.serve('sums')
  const remote = w.open().require('sums')
  const other = w.open().require('other')
  assert.equal(await remote.get('rate'), undefined)
  const values = [5, 'text', null, undefined, { deep: [Buffer.from('x')] }, '']
  for (const value of values) {
    await service.set('rate', value)
    assert.deepEqual(await remote.get('rate'), value)
  }
  await remote.set('rate', 'by a caller')
  assert.equal(await service.get('rate'), 'by a caller')
  assert.equal(await other.get('rate'), undefined)
  await remote.remove('rate')
  assert.equal(await service.get('rate'), undefined)
  await remote.remove('rate')
  await other.set('before', 'anybody serves it')
  assert.equal(await w.open().require('other').get('before'), 'anybody serves it')
})

onBothStores('settings - names and values are checked', async (w) => {
  const { service } = await w.serve('sums')
  for (const name of ['', 'x'.repeat(257), '\ud800', undefined, null, 5, {}]) {
    const bad = name as string
    for (const call of [
      service.get(bad),
      service.set(bad, 1),
      service.remove(bad),
      service.watch(bad, () => {}),
    ])
      await assert.rejects(call, /^TypeError: Expected `name` to be well-formed text/, `${name}`)
  }
  await assert.rejects(service.set('rate', new Map()), { code: 'E_CODEC' })
  await assert.rejects(service.watch('rate', 5 as never), /^TypeError: Expected `heard` to be a function/)
  const hostile = ['a\nb', '\0', ' ', '{x}', '*', '__proto__', 'é', '"', '\\', 'x'.repeat(256)]
  for (const name of hostile) await service.set(name, name)
  for (const name of hostile) assert.equal(await service.get(name), name)
})

onBothStores('settings - 1,000 of one service; those that exist can be changed', async (w) => {
  const { service } = await w.serve('sums')
  await Promise.all(Array.from({ length: 1_000 }, (_, n) => service.set(`setting ${n}`, n)))
  await assert.rejects(service.set('one more', 1), OverloadedError)
  await service.set('setting 5', 'changed')
  assert.equal(await service.get('setting 5'), 'changed')
  await service.remove('setting 6')
  await service.set('one more', 1)
})

onBothStores('settings - watch: each change over all objects, in order, until it is stopped', async (w) => {
  const { service } = await w.serve('sums')
  const caller = w.open()
  const remote = caller.require('sums')
  await service.set('rate', 1)
  const heard: unknown[] = []
  const own: unknown[] = []
  const stop = await remote.watch('rate', (value) => heard.push(value))
  await service.watch('rate', (value) => {
    own.push(value)
    throw new Error('a hook that throws')
  })
  for (const value of [2, { a: 3 }, null]) {
    await service.set('rate', value)
    await until(() => heard.at(-1) === value || JSON.stringify(heard.at(-1)) === JSON.stringify(value), {
      what: `${value}`,
    })
  }
  await service.set('other', 1)
  await service.remove('rate')
  await until(() => heard.length === 4 && own.length === 4, { what: 'the removal' })
  assert.deepEqual(heard, [2, { a: 3 }, null, undefined])
  assert.deepEqual(own, heard)
  stop()
  stop()
  await service.set('rate', 5)
  await until(() => own.length === 5, { what: 'the other watcher' })
  assert.equal(heard.length, 4)
})

onBothStores('events - up and down, everywhere, with what is known of the process', async (w) => {
  const watcher = w.open()
  const events: [string, ServingInfo][] = []
  watcher.on('up', (info) => events.push(['up', info]))
  watcher.on('down', (info) => events.push(['down', info]))
  await watcher.ping(watcher.id)
  const { services } = await w.serve('sums', { version: '1.2' })
  await until(() => events.length === 1, { what: 'up' })
  const info = { id: services.id, host: hostname(), pid: process.pid, service: 'sums', version: '1.2' }
  assert.deepEqual(events[0], ['up', info])
  await services.register('other')
  await until(() => events.length === 2, { what: 'the second service' })
  await services.unregister('sums')
  await until(() => events.length === 3, { what: 'down' })
  assert.deepEqual(events[2], ['down', info])
  await services.register('sums', { version: '2.0' })
  await until(() => events.length === 4, { what: 'up again' })
  assert.deepEqual(events[3], ['up', { ...info, version: '2.0' }])
  await services.close()
  await until(() => events.length === 6, { what: 'both to be down' })
  assert.deepEqual(
    events
      .slice(4)
      .map(([kind, { service }]) => `${kind} ${service}`)
      .sort(),
    ['down other', 'down sums'],
  )
})

onBothStores('events - `ready` resolves when a process serves the service', async (w) => {
  const caller = w.open()
  const remote = caller.require('sums', { timeout: 5_000 })
  const ready = remote.ready()
  assert.equal(await soon(ready, 100), 'pending')
  const { services } = await w.serve('sums')
  await soon(ready)
  await soon(remote.ready())
  await services.close()
  await assert.rejects(remote.with({ within: 150 }).ready(), { code: 'E_TIMEOUT' })
  const closed = assert.rejects(remote.ready(), { code: 'E_CLOSED' })
  await caller.close()
  await closed
})

onBothStores('events - clean: nothing is left to do while all live', async (w) => {
  const { services } = await w.serve('sums')
  await w.serve('sums')
  assert.deepEqual(await services.clean(), [])
  assert.equal(Object.keys(await w.loads('sums')).length, 2)
  assert.deepEqual(await w.open().clean(), [])
})
