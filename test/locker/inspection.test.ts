import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import { inBothStores, leaseOf, parked } from '../support/lockers.ts'
import { rejectionOf, until } from '../support/wait.ts'

inBothStores(
  'inspection - peek reports free, locked, done, and done while locked, and changes nothing',
  async (w) => {
    const [one, other] = [w.create({ ttl: 50_000, cache: false }), w.create()]
    assert.deepEqual(await other.peek('key'), { status: 'free' })
    const lease = await leaseOf(one, 'key')
    const locked = await other.peek('key')
    assert.equal(locked.status, 'locked')
    assert.equal(locked.value, undefined)
    assert.match(locked.lock?.holder ?? '', new RegExp(`:${process.pid}$`))
    assert.equal(locked.lock?.fence, lease.fence)
    assert.equal(locked.lock?.parked, 0)
    assert.ok((locked.lock?.leaseLeft ?? 0) > 5000 && (locked.lock?.leaseLeft ?? 0) <= 10_000)
    const waiting = other.run('key', () => 'x')
    await parked(one, 'key', 1)
    await lease.publish('done')
    await waiting
    const done = await one.peek('key')
    assert.deepEqual([done.status, done.lock, done.value?.fence], ['done', undefined, lease.fence])
    assert.ok((done.value?.ttlLeft ?? 0) > 45_000 && (done.value?.age ?? -1) >= 0)
    const gate = pDefer<string>()
    const refresh = one.run('key', () => gate.promise, { refresh: true })
    await until(async () => (await one.peek('key')).lock, { what: 'the refresh' })
    assert.equal((await one.peek('key')).status, 'done')
    assert.ok(((await one.peek('key')).lock?.fence ?? 0) > lease.fence)
    gate.resolve('new')
    await refresh
    await one.invalidate('key')
    assert.deepEqual(await one.peek('key'), { status: 'free' })
  },
)

inBothStores('inspection - stats count events and show the current state', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const gate = pDefer<string>()
  const first = one.run('key', () => gate.promise)
  await until(() => one.stats().running === 1, { what: 'the work' })
  const joined = one.run('key', () => 'x')
  const elsewhere = other.run('key', () => 'x')
  await parked(one, 'key', 1)
  const during = one.stats()
  assert.deepEqual([during.flights, during.waiters, during.held, during.joins], [1, 2, 1, 1])
  await until(() => other.stats().parks >= 1, { what: 'the other process to park' })
  assert.equal(other.stats().waiters, 1)
  await until(() => one.stats().subscribed, { what: 'the subscription' })
  gate.resolve('done')
  await Promise.all([first, joined, elsewhere])
  await one.run('key', () => 'x')
  await rejectionOf(one.run('bad', () => Promise.reject(new Error('x'))))
  await until(() => one.stats().running === 0, { what: 'the slots to be released' })
  const after = one.stats()
  assert.deepEqual(
    [after.flights, after.waiters, after.held, after.running, after.works, after.failures, after.settled],
    [0, 0, 0, 0, 2, 1, 2],
  )
  assert.deepEqual([after.grants, after.takeovers, after.lost, after.timeouts, after.aborts], [2, 0, 0, 0, 0])
  assert.ok(after.hits + after.localHits === 1)
  for (const [name, value] of Object.entries(after)) assert.notEqual(value, undefined, name)
})
