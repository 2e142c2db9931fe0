import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { onCommands, onSubscription, type Scene, scene } from '../support/locker-scene.ts'
import { leaseOf, parked } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

/** Number of scripts that the server has run. */
async function readsDone({ t }: Scene): Promise<number> {
  return (await t.server.commandStats())['hget'] ?? 0
}

/** Resolves when the server has run one more; the reply may still be under way. */
async function executed(s: Scene, before: number): Promise<void> {
  await until(async () => (await readsDone(s)) > before, { what: 'the read to be executed' })
}

describe('invalidation, with `cache: false`', () => {
  test('S4 invalidate - once acknowledged, no caller receives an earlier result', async () => {
    await using s = await scene()
    for (let round = 0; round < 50; round += 1) {
      const [asker, invalidator] = round % 2 ? [s.locker, s.other] : [s.other, s.locker]
      assert.equal(await asker.run('k', () => round), round)
      await invalidator.invalidate('k')
    }
  })

  /** A caller of `locker` waits for an old work. Another joins it after an invalidation that its process has not received. */
  async function joinLate(
    s: Scene,
    old: { publish(value: unknown): Promise<void> },
    early: Promise<unknown>,
  ) {
    s.t.proxy.stall(true, onSubscription)
    await s.other.invalidate('k')
    const late = s.locker.run('k', () => 'new')
    await old.publish('old')
    assert.equal(await late, 'new')
    s.t.proxy.stall(false)
    assert.equal(await early, 'old')
  }

  test('S4 late join - of a flight whose work runs in this process', async () => {
    await using s = await scene()
    const end = pDefer<unknown>()
    let works = 0
    const early = s.locker.run('k', () => {
      works += 1
      return end.promise
    })
    await until(() => works === 1, { what: 'the work to run' })
    await joinLate(s, { publish: async (value) => end.resolve(value) }, early)
    // The earlier waiters receive the result of the earlier work, which does not run again for them.
    assert.equal(works, 1)
  })

  test('L1 invalidations - more often than the work takes: its caller is settled nevertheless', async () => {
    await using s = await scene()
    const result = s.locker.run('k', () => new Promise((resolve) => setTimeout(resolve, 100, 'v')), {
      timeout: 2000,
    })
    let settled = false
    const end = result.finally(() => {
      settled = true
    })
    while (!settled) await s.other.invalidate('k')
    assert.equal(await end, 'v')
    assert.equal(s.locker.stats().works, 1)
  })

  test('S4 late join - of a flight that is parked behind another process', async () => {
    await using s = await scene({ lease: 1500 })
    const old = await leaseOf(s.other)
    const early = s.locker.run('k', () => 'early')
    await parked(s.other)
    await joinLate(s, old, early)
  })

  test('S4 late join - of a flight whose read was answered, while the reply is under way', async () => {
    await using s = await scene()
    await s.other.run('k', () => 'old')
    s.t.proxy.delay(300, { direction: 'down', only: onCommands })
    s.t.proxy.stall(true, onSubscription)
    const reads = await readsDone(s)
    const early = s.locker.run('k', () => 'anew')
    await executed(s, reads)
    await s.other.invalidate('k')
    const late = s.locker.run('k', () => 'new')
    assert.equal(await late, 'new')
    await early
  })

  test('S4 newer - a late joiner receives the result of an accepted refresh', async () => {
    await using s = await scene()
    await s.other.run('k', () => 'old')
    s.t.proxy.delay(300, { direction: 'down', only: onCommands })
    s.t.proxy.stall(true, onSubscription)
    const reads = await readsDone(s)
    const early = s.locker.run('k', () => 'anew')
    await executed(s, reads)
    assert.equal(await s.other.run('k', () => 'newer', { refresh: true }), 'newer')
    assert.equal(await s.locker.run('k', () => 'anew'), 'newer')
    assert.ok(['old', 'newer'].includes(String(await early)))
  })

  test('S4 invalidate - earlier waiters receive the result of the earlier work, which is not kept', async () => {
    await using s = await scene()
    const lease = await leaseOf(s.other)
    const before = s.locker.run('k', () => 'anew')
    await parked(s.other)
    await s.other.invalidate('k')
    const after = s.locker.run('k', () => 'new')
    await lease.publish('old')
    assert.deepEqual(await Promise.all([before, after]), ['old', 'new'])
    assert.equal(await s.other.run('k', () => 'anew'), 'new')
  })
})

describe('invalidation, with the in-process cache', () => {
  const cached = { cache: { max: 100 } } as const

  /** Delays the reply to the publish of `act`. Meanwhile the result is invalidated, and that message arrives. */
  async function invalidateBehind(s: Scene, act: () => Promise<unknown>): Promise<void> {
    s.t.proxy.delay(300, { direction: 'down', only: onCommands })
    const result = act()
    await until(async () => (await s.other.peek('k')).status === 'done', {
      what: 'the result to be accepted',
    })
    await s.other.invalidate('k')
    assert.equal(await result, 'old')
    s.t.proxy.delay(0)
    assert.equal(await s.locker.run('k', () => 'new'), 'new')
  }

  test('S4 cache - does not keep a result that was invalidated while the reply was under way', async () => {
    await using s = await scene(cached)
    await invalidateBehind(s, () => s.locker.run('k', () => 'old'))
  })

  test('S4 cache - nor the result of a refresh', async () => {
    await using s = await scene(cached)
    await invalidateBehind(s, () => s.locker.run('k', () => 'old', { refresh: true }))
  })

  test('S4 cache - nor the result of a flight that was invalidated before', async () => {
    await using s = await scene({ ...cached, lease: 500 })
    const lease = await leaseOf(s.other)
    const result = s.locker.run('k', () => 'old')
    await parked(s.other)
    await s.other.invalidate('k')
    // The flight goes on for its waiter, and becomes the next processor.
    s.t.proxy.delay(300, { direction: 'down', only: onCommands })
    await lease.release()
    await until(async () => (await s.other.peek('k')).status === 'done', {
      what: 'the result to be accepted',
    })
    await s.other.invalidate('k')
    assert.equal(await result, 'old')
    s.t.proxy.delay(0)
    assert.equal(await s.locker.run('k', () => 'new'), 'new')
  })

  test('S4 cache - a later caller does not join a flight that parked before an invalidation', async () => {
    await using s = await scene(cached)
    const lease = await leaseOf(s.other)
    s.t.proxy.delay(200, { direction: 'down', only: onCommands })
    const before = s.locker.run('k', () => 'anew')
    await parked(s.other)
    await s.other.invalidate('k')
    await until(() => s.locker.stats().parks === 1, { what: 'the late reply' })
    s.t.proxy.delay(0)
    const after = s.locker.run('k', () => 'new')
    await lease.publish('old')
    assert.deepEqual(await Promise.all([before, after]), ['old', 'new'])
  })
})

test('progress - published while the reply to a claim is under way, it reaches the claimer', async () => {
  await using s = await scene()
  const lease = await leaseOf(s.other)
  s.t.proxy.delay(300, { direction: 'down', only: onCommands })
  const seen: unknown[] = []
  const waiting = s.locker.run('k', () => 'anew', { onProgress: (value) => seen.push(value) })
  await parked(s.other)
  // The message overtakes the earlier reply.
  lease.progress('half')
  await until(() => seen.length > 0, { what: 'the progress' })
  assert.deepEqual(seen, ['half'])
  await lease.publish('done')
  assert.equal(await waiting, 'done')
})
