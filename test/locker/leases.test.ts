import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { Lease, LeaseLostError, Locker, MemoryStore, NotLockedError } from '../../src/index.ts'
import { EPSILON, inBothStores, leaseOf, parked } from '../support/lockers.ts'
import { rejectionOf, until } from '../support/wait.ts'

inBothStores('S2 leases - locker.publish requires exactly one lease of the key', async (w) => {
  const [one, other] = [w.create({ lease: 300 }), w.create()]
  const none = await rejectionOf(one.publish('key', 1))
  assert.ok(none instanceof NotLockedError && none.key === 'key' && none.code === 'E_NOT_LOCKED')
  const first = await leaseOf(one, 'key')
  assert.ok((await rejectionOf(other.publish('key', 1))) instanceof NotLockedError)
  await w.lose('key')
  await until(() => first.signal.aborted, { what: 'the loss to be seen' })
  assert.ok(first.signal.reason instanceof LeaseLostError)
  const second = await leaseOf(one, 'key')
  assert.ok((await rejectionOf(one.publish('key', 1))) instanceof NotLockedError, 'two leases')
  assert.ok((await rejectionOf(first.publish('of the lost one'))) instanceof LeaseLostError)
  await one.publish('key', 'by the locker', { ttl: 60_000 })
  assert.ok((await rejectionOf(second.publish('again'))) instanceof LeaseLostError)
  assert.equal(await other.run('key', () => 'unused'), 'by the locker')
  const left = (await one.peek('key')).value?.ttlLeft ?? 0
  assert.ok(left > 50_000 && left <= 60_000)
})

inBothStores('S3 leases - locker.publish does not publish in place of a work of `run`', async (w) => {
  const locker = w.create()
  const end = pDefer<string>()
  const result = locker.run('key', () => end.promise)
  await until(() => locker.stats().held === 1, { what: 'the work to run' })
  assert.ok((await rejectionOf(locker.publish('key', 'of no work'))) instanceof NotLockedError)
  end.resolve('of the work')
  assert.equal(await result, 'of the work')
})

inBothStores(
  'S1 S2 leases - fences grow, and a superseded lease cannot publish, fail or release',
  async (w) => {
    const one = w.create({ lease: 200 })
    const fences: number[] = []
    for (let round = 0; round < 4; round++) {
      const lease = await leaseOf(one, 'key')
      fences.push(lease.fence)
      await w.lose('key')
      const next = await leaseOf(w.create(), 'key')
      fences.push(next.fence)
      const attempt = [() => lease.publish(1), () => lease.fail(new Error('x')), () => lease.release()][
        round % 3
      ]
      if (round % 3 < 2)
        assert.ok((await rejectionOf(attempt?.() ?? Promise.resolve())) instanceof LeaseLostError)
      else await lease.release().catch(() => {})
      assert.equal((await one.peek('key')).lock?.fence, next.fence)
      await next.release()
    }
    assert.deepEqual(
      fences,
      [...new Set(fences)].sort((a, b) => a - b),
    )
  },
)

inBothStores('S3 leases - a lease is settled once, however it is settled again', async (w) => {
  const locker = w.create({ cache: false })
  const again = (lease: Lease) => [
    () => lease.publish('second'),
    () => lease.fail(new Error('second')),
    () => lease.release(),
  ]
  const published = await leaseOf(locker, 'published')
  await published.publish('first')
  const released = await leaseOf(locker, 'released')
  await released.release()
  const failed = await leaseOf(locker, 'failed')
  await failed.fail(new Error('first'))
  for (const attempt of [published, released, failed].flatMap(again)) {
    const error = await rejectionOf(attempt())
    assert.ok(error instanceof LeaseLostError && error.code === 'E_LEASE_LOST')
  }
  const both = await leaseOf(locker, 'both')
  const outcomes = await Promise.allSettled([both.publish('one'), both.publish('two'), both.release()])
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected'],
  )
  assert.equal(await locker.run('both', () => 'x'), 'one')
  assert.equal(await locker.run('published', () => 'x'), 'first')
})

inBothStores(
  'L2 leases - release passes the lease to the next waiter at once, in this process and in others',
  async (w) => {
    const [one, other] = [w.create(), w.create()]
    const first = await leaseOf(one, 'key')
    const local = one.request('key')
    await first.release()
    const second = await local
    assert.ok(second instanceof Lease && second.fence > first.fence)
    const remote = other.run('key', () => 'of the other process')
    await parked(one, 'key', 1)
    const from = performance.now()
    await second.release()
    assert.equal(await remote, 'of the other process')
    assert.ok(performance.now() - from < EPSILON)
  },
)

inBothStores('leases - leaving the scope of a lease releases it, unless it was settled', async (w) => {
  const locker = w.create()
  {
    await using lease = await leaseOf(locker, 'left')
    assert.equal((await locker.peek('left')).lock?.fence, lease.fence)
  }
  assert.equal((await locker.peek('left')).status, 'free')
  {
    await using lease = await leaseOf(locker, 'settled')
    await lease.publish('kept')
  }
  assert.equal(await locker.run('settled', () => 'x'), 'kept')
  assert.equal(locker.stats().held, 0)
})

/** The settlements of its clients reach it after several leases. */
class SlowlySettledStore extends MemoryStore {
  override connect(): ReturnType<MemoryStore['connect']> {
    const client = super.connect()
    const settle = client.settle.bind(client)
    client.settle = async (...args) => {
      await sleep(900)
      return settle(...args)
    }
    return client
  }
}

test('S2 leases - a lease that is renewed while a publish is under way is not lost', async () => {
  const locker = new Locker({ store: new SlowlySettledStore(), lease: 300 })
  const lease = await leaseOf(locker, 'key')
  await lease.publish('value')
  assert.equal(lease.signal.aborted, false, String(lease.signal.reason))
  assert.equal(locker.stats().lost, 0)
  assert.equal(await locker.run('key', () => 'unused'), 'value')
  await locker.close()
})
