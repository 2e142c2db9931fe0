// Which process gets a call, and what the record says of the load.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { RemoteError } from '../../src/errors.ts'
import { type Call, MemoryServices, Services } from '../../src/services/index.ts'
import { onBothStores, type ServicesWorld } from '../support/services.ts'
import { until } from '../support/wait.ts'

/** Processes that count their runs of `do`, and whose runs of `stick` last until `gate` resolves. */
async function processes(w: ServicesWorld, count: number, options = {}) {
  const gate = pDefer()
  const served = await Promise.all(
    Array.from({ length: count }, async () => {
      const { services, service } = await w.serve('work', options)
      const runs = { do: 0, stick: 0 }
      service
        .on('do', () => {
          runs.do++
          return services.id
        })
        .on('stick', async () => {
          runs.stick++
          await gate.promise
          return services.id
        })
      return { services, runs }
    }),
  )
  return { gate, served }
}

onBothStores('load - ten calls that stick in one process send the next to the other', async (w) => {
  const first = await processes(w, 1)
  const remote = w.open().require('work')
  const stuck = Array.from({ length: 10 }, () => remote.emit('stick'))
  await until(() => first.served[0]?.runs.stick === 10, { what: 'ten calls' })
  const second = await processes(w, 1)
  for (let n = 0; n < 20; n++) assert.equal(await remote.emit('do'), second.served[0]?.services.id)
  first.gate.resolve()
  await Promise.all(stuck)
  await w.idle('work')
})

onBothStores('load - calls of one tick spread evenly', async (w) => {
  const { gate, served } = await processes(w, 4)
  const remote = w.open().require('work')
  const calls = Array.from({ length: 40 }, () => remote.emit('stick'))
  await until(() => served.reduce((sum, { runs }) => sum + runs.stick, 0) === 40, { what: 'all calls' })
  assert.deepEqual(
    served.map(({ runs }) => runs.stick),
    [10, 10, 10, 10],
  )
  assert.deepEqual(Object.values(await w.loads('work')), [10, 10, 10, 10])
  gate.resolve()
  await Promise.all(calls)
  await w.idle('work')
})

onBothStores('load - random among equals', async (w) => {
  const { served } = await processes(w, 3)
  const remote = w.open().require('work')
  for (let n = 0; n < 150; n++) {
    await remote.emit('do')
    await w.idle('work')
  }
  for (const { runs } of served) assert.ok(runs.do > 15, `${served.map(({ runs }) => runs.do)}`)
})

onBothStores('load - V4 it is 0 when all is over, however the calls ended', async (w) => {
  const { service } = await w.serve('mixed', { capacity: 5, backlog: 20 })
  const gate = pDefer()
  service
    .on('fine', (value) => value)
    .on('throws', () => {
      throw new Error('x')
    })
    .on('hangs', async (call: Call) => {
      await Promise.race([
        gate.promise,
        new Promise((resolve) => call.signal.addEventListener('abort', resolve)),
      ])
    })
    .on('unsendable', () => new Map())
    .on('stream', async function* () {
      for (let n = 0; n < 100; n++) yield n
    })
  const caller = w.open()
  const remote = caller.require('mixed')
  const abort = new AbortController()
  const calls: Promise<unknown>[] = []
  for (let n = 0; n < 10; n++) {
    calls.push(
      remote.emit('fine', n),
      remote.emit('throws'),
      remote.emit('unsendable'),
      remote.pemit(2, 'none'),
    )
    calls.push(
      remote.with({ timeout: 50 }).emit('hangs'),
      remote.with({ signal: abort.signal }).emit('hangs'),
    )
    calls.push(remote.notify('fine'), remote.notify('throws'), remote.notify('none'))
    calls.push(remote.with({ within: 400 }).pemit(-1, 'fine'))
    const stream = remote.stream('stream')
    calls.push(stream.next().then(() => stream.return()))
  }
  setTimeout(() => abort.abort(), 100)
  await Promise.allSettled(calls)
  gate.resolve()
  await w.idle('mixed')
  assert.equal(caller.stats().calling, 0)
  const free = Array.from({ length: 25 }, () => remote.emit('fine', 1))
  assert.deepEqual(
    (await Promise.allSettled(free)).filter(({ status }) => status === 'rejected'),
    [],
  )
  await w.idle('mixed')
})

onBothStores('load - `local-first` prefers this process while it has room', async (w) => {
  const { gate, served } = await processes(w, 3, { capacity: 2 })
  const [here] = served
  assert.ok(here)
  const remote = here.services.require('work', { choose: 'local-first' })
  for (let n = 0; n < 20; n++) assert.equal(await remote.emit('do'), here.services.id)
  const stuck = Array.from({ length: 6 }, () => remote.emit('stick'))
  await until(() => served.every(({ runs }) => runs.stick === 2), { what: 'six calls' })
  assert.equal(here.runs.stick, 2)
  gate.resolve()
  await Promise.all(stuck)
  assert.ok(await w.open().require('work', { choose: 'local-first' }).emit('do'), 'nor need it serve it')
})

onBothStores('load - 1,000 calls over three processes: each once, none lost', async (w) => {
  const { served } = await processes(w, 3)
  const ids = new Map<string, number>()
  for (const { services } of served) ids.set(services.id, 0)
  const remote = w.open().require('work')
  for (const id of (await Promise.all(Array.from({ length: 1000 }, () => remote.emit('do')))) as string[])
    ids.set(id, (ids.get(id) ?? 0) + 1)
  assert.equal(
    served.reduce((sum, { runs }) => sum + runs.do, 0),
    1000,
  )
  assert.equal(
    [...ids.values()].reduce((sum, count) => sum + count),
    1000,
  )
  await w.idle('work')
})

onBothStores('load - a handler may call its own service', async (w) => {
  const { services, service } = await w.serve('deep')
  const deep = services.require('deep')
  service.on('sum', async (n: number) => (n === 0 ? 0 : n + Number(await deep.emit('sum', n - 1))))
  assert.equal(await w.open().require('deep').emit('sum', 10), 55)
  await w.idle('deep')
})

onBothStores('load - services of one process, and of one name under other prefixes, are apart', async (w) => {
  const { services, service } = await w.serve('a')
  service.on('name', () => 'a')
  ;(await services.register('b')).on('name', () => 'b')
  const caller = w.open()
  assert.deepEqual(
    [await caller.require('a').emit('name'), await caller.require('b').emit('name')],
    ['a', 'b'],
  )
  await assert.rejects(services.register('a'), { code: 'E_DUPLICATE_HANDLER' })
  if (w.kind === 'redis') {
    const other = w.open({ prefix: 'other' })
    await assert.rejects(other.require('a').emit('name'), { code: 'E_NO_SERVICE' })
  }
})

test('load - without Redis and without a store, an object is alone', async () => {
  await using alone = new Services()
  await using other = new Services()
  const service = await alone.register('sums')
  service.on('add', (a, b) => a + b)
  assert.equal(await alone.require('sums').emit('add', 1, 2), 3)
  await assert.rejects(other.require('sums').emit('add', 1, 2), { code: 'E_NO_SERVICE' })
  const store = new MemoryServices()
  assert.throws(() => new Services({ store, redis: 'redis://localhost' }), /either `redis` or `store`/)
})

onBothStores('load - V1 maxMessage, of arguments, results and messages', async (w) => {
  const { service } = await w.serve('echo', { of: { maxMessage: 1000 } })
  service.on('back', (value) => value).on('big', (bytes: number) => 'x'.repeat(bytes))
  const caller = w.open({ maxMessage: 2000 })
  const echo = caller.require('echo')
  assert.equal(await echo.emit('back', 'x'.repeat(900)), 'x'.repeat(900))
  const long = 'x'.repeat(2000)
  for (const call of [echo.emit('back', long), echo.pemit(2, 'back', long), echo.notify('back', long)])
    await assert.rejects(call, { code: 'E_TOO_LARGE', ran: 'no' })
  await assert.rejects(echo.stream('back', long).next(), { code: 'E_TOO_LARGE', ran: 'no' })
  await assert.rejects(echo.emit('big', 1000), (error) => {
    assert.ok(error instanceof RemoteError && error.remote.code === 'E_TOO_LARGE' && error.ran === 'yes')
    return true
  })
  await assert.rejects(caller.send(caller.id, long), { code: 'E_TOO_LARGE' })
  await assert.rejects(echo.set('setting', long), { code: 'E_TOO_LARGE' })
  await w.idle('echo')
})

onBothStores('load - the largest messages end no subscription', async (w) => {
  const maxMessage = 16 * 1024 * 1024
  const { service } = await w.serve('echo', { of: { maxMessage, unavailableAfter: 10_000 } })
  // As encoded: two bytes before a result, and three more around an argument.
  service.on('back', (value: Buffer) => value).on('big', () => Buffer.alloc(maxMessage - 2, 'x'))
  const caller = w.open({ maxMessage, unavailableAfter: 10_000 })
  await caller.ping(caller.id)
  const subscribers = async () =>
    String(await w.t?.server.call('CLIENT', 'LIST', 'TYPE', 'pubsub')).match(/\bid=\d+/g)
  const before = await subscribers()
  for (let n = 0; n < 3; n++) {
    const big = (await caller.require('echo').emit('big')) as Buffer
    assert.equal(big.length, maxMessage - 2)
  }
  const argument = 'x'.repeat(maxMessage - 5)
  assert.equal(((await caller.require('echo').emit('back', argument)) as string).length, argument.length)
  assert.deepEqual(await subscribers(), before)
  assert.throws(() => w.open({ maxMessage: maxMessage + 1 }), /^TypeError: Expected `maxMessage` to be/)
})
