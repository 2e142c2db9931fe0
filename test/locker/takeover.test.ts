import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { Lease, LeaseLostError, LockTimeoutError, TimeoutError } from '../../src/index.ts'
import { EPSILON, inBothStores, leaseOf } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

function assertLockTimeout(result: PromiseSettledResult<unknown>): void {
  assert.ok(result.status === 'rejected', 'it was rejected')
  assert.ok(result.reason instanceof LockTimeoutError, `${result.reason}`)
}

inBothStores('takeover - a lease ends at maxHold, and the next waiter takes over', async (w) => {
  const [one, other] = [w.create({ maxHold: 400, lease: 150 }), w.create()]
  const from = performance.now()
  const lease = await leaseOf(one, 'key')
  const next = other.run('key', () => 'of the next')
  assert.equal(await next, 'of the next')
  const held = performance.now() - from
  assert.ok(held >= 395 && held < 400 + EPSILON, `held for ${held} ms`)
  assert.ok(lease.signal.reason instanceof LeaseLostError)
  await assert.rejects(lease.publish('too late'), LeaseLostError)
  assert.equal(await other.run('key', () => 'again'), 'of the next')
  assert.equal(one.stats().held, 0)
})

inBothStores(
  'takeover - a work that exceeds maxHold is aborted, and its result is not accepted',
  async (w) => {
    const [one, other] = [w.create({ maxHold: 300, lease: 200 }), w.create()]
    const end = pDefer()
    const aborted = pDefer<unknown>()
    const first = one.run(
      'key',
      async ({ signal }) => {
        signal.addEventListener('abort', () => aborted.resolve(signal.reason))
        await end.promise
        return 'late'
      },
      { timeout: 250 },
    )
    await assert.rejects(first, TimeoutError)
    assert.equal(await other.run('key', () => 'of the next'), 'of the next')
    assert.ok((await aborted.promise) instanceof LeaseLostError)
    end.resolve()
    await until(() => one.stats().works === 1, { what: 'the work to end' })
    assert.equal(await w.create().run('key', () => 'again'), 'of the next')
  },
)

inBothStores('takeover - the lease of the locker or of the request reaches the store', async (w) => {
  const locker = w.create({ lease: 5000 })
  await leaseOf(locker, 'key')
  await leaseOf(locker, 'own', 60_000)
  const left = async (key: string) => (await locker.peek(key)).lock?.leaseLeft ?? 0
  assert.ok((await left('key')) > 3000 && (await left('key')) <= 5000)
  assert.ok((await left('own')) > 50_000 && (await left('own')) <= 60_000)
})

inBothStores('takeover - a short lease is renewed while the work runs', async (w) => {
  const [one, other] = [w.create({ lease: 300 }), w.create()]
  const first = one.run('key', async ({ signal }) => {
    await sleep(1000)
    return signal.aborted ? 'lost' : 'kept'
  })
  await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
  assert.deepEqual(await Promise.all([first, other.run('key', () => 'taken')]), ['kept', 'kept'])
  assert.equal(other.stats().takeovers, 0)
})

inBothStores('L2 takeover - a waiter takes over from a dead holder within the lease', async (w) => {
  const [one, other] = [w.create(), w.create()]
  await w.dieHolding('key', 400)
  const from = performance.now()
  let works = 0
  const work = () => ++works
  assert.deepEqual(await Promise.all([one.run('key', work), other.run('key', work)]), [1, 1])
  const waited = performance.now() - from
  assert.ok(waited > 300 && waited < 400 + EPSILON, `${waited} ms`)
  assert.equal(one.stats().takeovers + other.stats().takeovers, 1)
})

inBothStores('takeover - with takeover false, waiters for a dead holder are rejected', async (w) => {
  const locker = w.create({ takeover: false })
  await w.dieHolding('key', 300)
  const waits = [locker.run('key', () => 'x'), locker.run('key', () => 'x')]
  const rejected = await Promise.allSettled(waits)
  for (const wait of rejected)
    assert.ok(wait.status === 'rejected' && wait.reason instanceof LockTimeoutError)
  assert.equal(await locker.run('key', () => 'the next caller'), 'the next caller')
})

inBothStores(
  'takeover - with takeover false, waiters for a holder whose lease ended at maxHold are rejected',
  async (w) => {
    const holder = w.create({ maxHold: 400 })
    const [one, other] = [w.create({ takeover: false }), w.create({ takeover: false })]
    const ticket = await holder.request('key')
    assert.ok(ticket instanceof Lease, 'it is held')
    const from = performance.now()
    const waits = [one.run('key', () => 'x'), one.run('key', () => 'x'), other.request('key')]
    await until(async () => (await holder.peek('key')).lock?.parked === 2, { what: 'the parks' })
    for (const wait of await Promise.allSettled(waits)) assertLockTimeout(wait)
    // Long before the lease of 10 s would have expired.
    assert.ok(performance.now() - from < 400 + EPSILON, `${performance.now() - from} ms`)
    await assert.rejects(ticket.publish('late'), { code: 'E_LEASE_LOST' })
    assert.equal(await one.run('key', () => 'the next caller'), 'the next caller')
  },
)

inBothStores(
  'takeover - with takeover false and maxHold, waiters in the process of the work are rejected as well',
  async (w) => {
    const locker = w.create({ maxHold: 300, takeover: false })
    let works = 0
    const never = () => {
      works++
      return new Promise<never>(() => {})
    }
    const waits = [locker.run('key', never), locker.run('key', never), locker.request('key')]
    for (const wait of await Promise.allSettled(waits)) assertLockTimeout(wait)
    assert.equal(works, 1)
  },
)

inBothStores(
  'takeover - a holder whose lease ended at maxHold is replaced at once by a waiter that may take over',
  async (w) => {
    const holder = w.create({ maxHold: 400 })
    const [staying, taking] = [w.create({ takeover: false }), w.create()]
    assert.ok((await holder.request('key')) instanceof Lease, 'it is held')
    const stays = staying.run('key', () => 'x')
    await until(async () => (await holder.peek('key')).lock?.parked === 1, { what: 'the park' })
    const takes = taking.run('key', () => 'taken')
    const from = performance.now()
    // A waiter that may not take over still receives the result of a successor that is faster than its rejection.
    const [stayed, taken] = await Promise.allSettled([stays, takes])
    assert.deepEqual(taken, { status: 'fulfilled', value: 'taken' })
    assert.ok(performance.now() - from < 400 + EPSILON, `${performance.now() - from} ms`)
    if (stayed.status === 'rejected') assertLockTimeout(stayed)
    else assert.equal(stayed.value, 'taken')
  },
)

inBothStores('takeover - with takeover false, release and close still pass the lease on', async (w) => {
  const [holder, closing, waiter] = [w.create(), w.create(), w.create({ takeover: false })]
  const ticket = await holder.request('released')
  await closing.request('closed')
  const waits = ['released', 'closed'].map((key) => waiter.run(key, () => `after ${key}`))
  for (const key of ['released', 'closed'])
    await until(async () => (await waiter.peek(key)).lock?.parked === 1, { what: 'the park' })
  assert.ok(ticket instanceof Lease, 'it is held')
  await Promise.all([ticket.release(), closing.close({ grace: 0 })])
  assert.deepEqual(await Promise.all(waits), ['after released', 'after closed'])
})
