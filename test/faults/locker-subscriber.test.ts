import assert from 'node:assert/strict'
import { subscribe } from 'node:diagnostics_channel'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { channelName, type Lease, Locker } from '../../src/index.ts'
import { LONG, onCommands, onSubscription, type Scene, scene } from '../support/locker-scene.ts'
import { EPSILON, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

/** A lost subscription is detected within this time, ms. */
const DETECTED = 2000

/** A lease of `other`, behind which `locker` is parked. */
async function parkedScene({ locker, other }: Scene): Promise<{ lease: Lease; result: Promise<unknown> }> {
  const lease = await leaseOf(other)
  const result = locker.run('k', () => 'anew')
  result.catch(() => {})
  await parked(other)
  return { lease, result }
}

describe('a message is lost', () => {
  test('L3 lost message - the waiter receives the result by the next poll', async () => {
    const lease = 1000
    // Shorter than the detection of the silence, so only the poll can find the result.
    await using s = await scene({ lease })
    const { lease: held, result } = await parkedScene(s)
    s.t.proxy.blackhole(true, onSubscription)
    await held.publish('v')
    const ms = await took(() => result)
    assert.equal(await result, 'v')
    assert.ok(ms < lease + EPSILON, `it took ${ms} ms`)
    assert.equal(s.locker.stats().works, 0)
  })

  test('L3 lost message - also of a result with ttl 0: the work does not run again', async () => {
    const lease = 1000
    await using s = await scene({ lease, ttl: 0 })
    const { lease: held, result } = await parkedScene(s)
    s.t.proxy.blackhole(true, onSubscription)
    await held.publish('v')
    const ms = await took(async () => assert.equal(await result, 'v'))
    assert.ok(ms < lease + EPSILON, `it took ${ms} ms`)
    assert.equal(s.locker.stats().works, 0)
  })

  test('L3 lost message - of a release: the lease is taken by the next poll', async () => {
    const lease = 1000
    await using s = await scene({ lease })
    const { lease: held, result } = await parkedScene(s)
    s.t.proxy.blackhole(true, onSubscription)
    await held.release()
    const ms = await took(async () => assert.equal(await result, 'anew'))
    assert.ok(ms < lease + EPSILON, `it took ${ms} ms`)
  })
})

describe('the subscription is lost', () => {
  test('progress - that overtakes the reply to a poll: nothing is shown twice, and nothing older behind it', async () => {
    await using s = await scene()
    const { t, locker, other } = s
    const [next, end] = [pDefer<void>(), pDefer<void>()]
    const work = other.run('k', async ({ progress }) => {
      progress(1)
      await next.promise
      progress(2)
      await end.promise
      return 'done'
    })
    await until(async () => (await other.peek('k')).lock, { what: 'the claim' })
    const seen: unknown[] = []
    const waiter = locker.run('k', () => 'x', { onProgress: (value) => seen.push(value) })
    await until(() => seen.length, { what: 'the first progress' })
    await parked(other)
    // It polls when it has subscribed again. The reply, with the first progress, arrives after the second one.
    await t.server.call('CONFIG', 'RESETSTAT')
    t.proxy.delay(400, { direction: 'down', only: onCommands })
    t.proxy.cut(onSubscription)
    const isPolled = async () =>
      /cmdstat_evalsha:calls=/.test(String(await t.server.call('INFO', 'commandstats')))
    await until(isPolled, { what: 'the poll' })
    next.resolve()
    await until(() => seen.length > 1, { what: 'the second progress' })
    t.proxy.delay(0)
    // Its reply comes behind that to the poll.
    await locker.peek('behind')
    end.resolve()
    assert.deepEqual(await Promise.all([work, waiter]), ['done', 'done'])
    assert.deepEqual(seen, [1, 2])
  })

  test('L3 CLIENT KILL - of all subscribers: waiters receive a published result at once', async () => {
    await using s = await scene()
    const { lease, result } = await parkedScene(s)
    assert.ok(Number(await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')) >= 2)
    await lease.publish('v')
    const ms = await took(async () => assert.equal(await result, 'v'))
    assert.ok(ms < 2 * EPSILON, `it took ${ms} ms`)
    await until(() => s.locker.stats().subscribed && s.other.stats().subscribed, {
      what: 'new subscriptions',
    })
  })

  test('L3 CLIENT KILL - again and again, while results are published', async () => {
    await using s = await scene()
    for (let round = 0; round < 20; round += 1) {
      const key = `k.${round}`
      const work = s.other.run(key, () => new Promise((resolve) => setTimeout(resolve, round, round)))
      const results = Promise.all([s.locker.run(key, () => round), s.locker.run(key, () => round)])
      await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      const ms = await took(() => Promise.all([work, results]))
      assert.deepEqual(await results, [round, round])
      assert.ok(ms < 2 * EPSILON, `it took ${ms} ms`)
    }
    assert.equal(s.other.stats().works + s.locker.stats().works, 20)
  })

  test('L3 black hole - without an end of the connection: detected within 2 s', async () => {
    await using s = await scene()
    const { lease, result } = await parkedScene(s)
    const [hole] = s.t.proxy.connections.filter(onSubscription)
    s.t.proxy.blackhole(true, (connection) => connection === hole)
    const published = took(() => lease.publish('v'))
    const ms = await took(async () => assert.equal(await result, 'v'))
    assert.ok(ms < DETECTED + EPSILON, `it took ${ms} ms`)
    assert.ok((await published) < EPSILON)
    assert.ok(s.locker.stats().subscribed)
  })

  test('L3 gap - a result that is published before the new subscription is read then', async () => {
    await using s = await scene()
    const { lease, result } = await parkedScene(s)
    await s.t.proxy.refuse(true)
    s.t.proxy.cut(onSubscription)
    await until(() => !s.locker.stats().subscribed, { what: 'the loss to be detected' })
    await lease.publish('v')
    await s.t.proxy.refuse(false)
    const ms = await took(async () => assert.equal(await result, 'v'))
    // Attempts to connect are at most a second apart.
    assert.ok(ms < 1000 + EPSILON, `it took ${ms} ms`)
    assert.equal(s.locker.stats().works, 0)
  })

  test('L3 gap - between the connection and the subscription', async () => {
    await using s = await scene()
    const { lease, result } = await parkedScene(s)
    const fault = s.t.proxy.swallowReply(/^SUBSCRIBE/)
    s.t.proxy.cut(onSubscription)
    await fault.struck
    await lease.publish('v')
    const ms = await took(async () => assert.equal(await result, 'v'))
    assert.ok(ms < 1000 + EPSILON, `it took ${ms} ms`)
  })

  test('L3 output buffer - a subscriber that the server drops for a large message reads the result', async () => {
    await using s = await scene()
    const { lease, result } = await parkedScene(s)
    await s.t.server.call('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 10000 10000 1')
    const value = 'x'.repeat(60_000)
    await lease.publish(value)
    const ms = await took(async () => assert.equal(await result, value))
    assert.ok(ms < 1000 + EPSILON, `it took ${ms} ms`)
  })

  test('L3 first connect - refused, and accepted later: the first caller is served', async () => {
    await using t = await setup({ proxy: true })
    await t.proxy.refuse(true)
    await using locker = new Locker({ redis: t.redis, lease: LONG, unavailableAfter: 5000, cache: false })
    await using other = new Locker({ redis: t.server.options, lease: LONG, cache: false })
    const lease = await leaseOf(other)
    const refusals: unknown[] = []
    subscribe(channelName('connection'), (message) => refusals.push(message))
    const result = locker.run('k', () => 'anew')
    await until(() => refusals.length >= 3, { what: 'some attempts to be refused' })
    assert.equal(locker.stats().subscribed, false)
    await t.proxy.refuse(false)
    await parked(other)
    await lease.publish('v')
    const ms = await took(async () => assert.equal(await result, 'v'))
    assert.ok(ms < 1000 + EPSILON, `it took ${ms} ms`)
    await until(() => locker.stats().subscribed, { what: 'the subscription' })
  })

  test('L3 no subscription - a waiter polls', async () => {
    await using s = await scene()
    await s.t.proxy.refuse(true)
    s.t.proxy.cut(onSubscription)
    await until(() => !s.locker.stats().subscribed, { what: 'the loss to be detected' })
    const { lease, result } = await parkedScene(s)
    await lease.publish('v')
    const ms = await took(async () => assert.equal(await result, 'v'))
    assert.ok(ms < 500 + EPSILON, `it took ${ms} ms`)
    assert.equal(s.locker.stats().subscribed, false)
  })

  test('L3 no subscription - a waiter that was parked before polls as well', async () => {
    await using s = await scene()
    const { lease, result } = await parkedScene(s)
    await s.t.proxy.refuse(true)
    s.t.proxy.cut(onSubscription)
    await until(() => !s.locker.stats().subscribed, { what: 'the loss to be detected' })
    await lease.publish('v')
    const ms = await took(() =>
      Promise.race([result, new Promise((resolve) => setTimeout(resolve, 4 * EPSILON))]),
    )
    assert.ok(ms < 500 + EPSILON, `it took ${ms} ms`)
    assert.equal(s.locker.stats().subscribed, false)
  })
})

describe('the in-process cache', () => {
  const cached = { cache: { max: 100 } } as const

  test('S4 cache - follows an invalidation elsewhere within milliseconds', async () => {
    await using s = await scene(cached)
    let slowest = 0
    for (let round = 0; round < 20; round += 1) {
      const before = await s.locker.run('k', () => round)
      assert.equal(s.locker.stats().cached, 1)
      await s.other.invalidate('k')
      const ms = await took(() =>
        until(() => s.locker.stats().cached === 0, { what: 'the invalidation to arrive', every: 1 }),
      )
      slowest = Math.max(slowest, ms)
      assert.equal(before, round)
    }
    assert.ok(slowest < EPSILON, `it took up to ${slowest} ms`)
  })

  test('S4 cache - follows a refresh elsewhere', async () => {
    await using s = await scene(cached)
    await s.locker.run('k', () => 'old')
    assert.equal(await s.other.run('k', () => 'new', { refresh: true }), 'new')
    const isNew = async () => (await s.locker.run('k', () => 'anew')) === 'new'
    const ms = await took(() => until(isNew, { what: 'the new result', every: 1 }))
    assert.ok(ms < EPSILON, `it took ${ms} ms`)
  })

  test('S4 cache - with a subscription that is lost without an event: old results end within 2 s', async () => {
    await using s = await scene(cached)
    await s.locker.run('k', () => 'old')
    s.t.proxy.blackhole(true, onSubscription)
    await s.other.invalidate('k')
    const acknowledgedAt = performance.now()
    const isNew = async () => (await s.locker.run('k', () => 'new')) === 'new'
    await until(isNew, { what: 'the new result', timeout: DETECTED + 2 * EPSILON })
    assert.ok(performance.now() - acknowledgedAt < DETECTED + EPSILON)
    // A process that knows of the loss serves nothing from its cache.
    const { hits, localHits } = s.locker.stats()
    assert.equal(await s.locker.run('k', () => 'again'), 'new')
    assert.equal(s.locker.stats().hits, hits + 1)
    assert.equal(s.locker.stats().localHits, localHits)
  })
})
