import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { ClosedError, Connection, LeaseLostError, Locker } from '../../src/index.ts'
import { EPSILON, inBothStores, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, until } from '../support/wait.ts'

inBothStores('L2 close - close waits for running works within its grace, and rejects waiters', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const gate = pDefer<string>()
  const mine = one.run('mine', () => gate.promise)
  const theirs = await leaseOf(other, 'theirs')
  const waits = rejectionOf(one.run('theirs', () => 'x'))
  await parked(other, 'theirs', 1)
  const remote = other.run('mine', () => 'x')
  await parked(other, 'mine', 1)
  const closed = one.close({ grace: 10_000 })
  assert.equal(one.close(), closed, 'closing twice is closing once')
  for (const ask of [() => one.run('new', () => 1), () => one.request('new'), () => one.peek('new')]) {
    assert.ok((await rejectionOf(ask())) instanceof ClosedError)
  }
  gate.resolve('in time')
  assert.deepEqual(await Promise.all([mine, remote]), ['in time', 'in time'])
  const error = await waits
  assert.ok(error instanceof ClosedError && error.key === 'theirs')
  await closed
  await until(async () => (await other.peek('theirs')).lock?.parked === 0, {
    what: 'the park to be removed',
  })
  await theirs.publish('x')
})

inBothStores('L2 close - close passes leases on at the end of its grace, and aborts the works', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const aborted = pDefer<unknown>()
  const never = rejectionOf(
    one.run('key', ({ signal }) => {
      signal.addEventListener('abort', () => aborted.resolve(signal.reason))
      return new Promise(() => {})
    }),
  )
  const lease = await leaseOf(one, 'leased')
  const next = [other.run('key', () => 'of the next'), other.run('leased', () => 'of the next')]
  await parked(other, 'key', 1)
  await parked(other, 'leased', 1)
  const from = performance.now()
  await one.close({ grace: 200 })
  assert.deepEqual(await Promise.all(next), ['of the next', 'of the next'])
  const took = performance.now() - from
  assert.ok(took >= 195 && took < 200 + EPSILON, `${took} ms`)
  assert.ok((await never) instanceof ClosedError)
  assert.ok((await aborted.promise) instanceof ClosedError)
  assert.ok(lease.signal.reason instanceof ClosedError)
  assert.ok((await rejectionOf(lease.publish('too late'))) instanceof LeaseLostError)
})

inBothStores('close - close of an unused locker and close by scope resolve', async (w) => {
  await w.create().close()
  {
    await using scoped = w.create()
    assert.equal(await scoped.run('key', () => 1), 1)
  }
  assert.equal(await w.create().run('key', () => 2), 1)
})

test('close - close of one of two lockers on a Connection does not affect the other', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  const one = new Locker({ redis: connection })
  await using other = new Locker({ redis: connection })
  const never = rejectionOf(one.run('key', () => new Promise(() => {})))
  await until(() => one.stats().running === 1, { what: 'the work' })
  const joined = other.run('key', () => 'of the other')
  await one.close({ grace: 0 })
  assert.ok((await never) instanceof ClosedError)
  assert.equal(await joined, 'of the other')
  assert.equal(await other.run('next', () => 'open'), 'open')
})
