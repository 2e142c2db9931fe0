import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Locker } from '../../src/index.ts'
import { EPSILON, inBothStores, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, until } from '../support/wait.ts'

inBothStores(
  'S4 invalidation - invalidate removes the results of several keys, in other processes too',
  async (w) => {
    const [one, other] = [w.create(), w.create()]
    for (const key of ['a', 'b', 'c']) await one.run(key, () => 'old')
    for (const key of ['a', 'b', 'c']) assert.equal(await other.run(key, () => 'x'), 'old')
    await one.invalidate('a', 'b')
    await one.invalidate()
    await one.invalidate('never seen')
    for (const key of ['a', 'b']) {
      assert.equal((await other.peek(key)).status, 'free')
      assert.equal(await one.run(key, () => `new ${key}`), `new ${key}`)
      const current = async () => (await other.run(key, () => 'x')) === `new ${key}`
      await until(current, { what: 'the invalidation to arrive', timeout: 2000 + EPSILON })
    }
    assert.equal(await other.run('c', () => 'x'), 'old')
  },
)

inBothStores(
  'S4 invalidation - invalidate during a flight: earlier waiters receive its result, later callers do not',
  async (w) => {
    const [one, other, third] = [
      w.create({ cache: false }),
      w.create({ cache: false }),
      w.create({ cache: false }),
    ]
    const gates = [pDefer<string>(), pDefer<string>()]
    let works = 0
    const work = () => gates[works++]?.promise ?? assert.fail('too many works')
    const first = one.run('key', work)
    await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
    const [joined, remote] = [one.run('key', work), other.run('key', work)]
    await parked(one, 'key', 1)
    await third.invalidate('key')
    const after = [one.run('key', work), other.run('key', work), third.run('key', work)]
    await until(async () => ((await third.peek('key')).lock?.parked ?? 0) >= 2, { what: 'the parks' })
    gates[0]?.resolve('begun before')
    await until(() => works === 2, { what: 'the second work' })
    gates[1]?.resolve('begun after')
    assert.deepEqual(await Promise.all(after), ['begun after', 'begun after', 'begun after'])
    assert.deepEqual(await Promise.all([first, remote]), ['begun before', 'begun before'])
    // Its process cannot know whether this caller came before the invalidation. Either result is correct.
    assert.match(await joined, /^begun (before|after)$/)
    assert.equal(works, 2)
    assert.equal(await one.run('key', work), 'begun after')
  },
)

inBothStores(
  'S4 invalidation - invalidate in the process of the work: later callers start a new work',
  async (w) => {
    for (const cache of [undefined, false as const]) {
      const locker = w.create(cache === false ? { cache } : {})
      const key = `key ${cache}`
      const gates = [pDefer<string>(), pDefer<string>()]
      let works = 0
      const work = () => gates[works++]?.promise ?? assert.fail('too many works')
      const before = locker.run(key, work)
      await until(() => works === 1, { what: 'the work' })
      const invalidated = locker.invalidate(key)
      await invalidated
      const after = locker.run(key, work)
      gates[0]?.resolve('begun before')
      assert.equal(await before, 'begun before')
      gates[1]?.resolve('begun after')
      assert.equal(await after, 'begun after')
      assert.equal(await locker.run(key, work), 'begun after')
    }
  },
)

inBothStores(
  'invalidation - a work that invalidates its own key returns its result, which is not kept',
  async (w) => {
    const locker = w.create()
    const result = await locker.run('key', async ({ key }) => {
      await locker.invalidate(key)
      return 'not kept'
    })
    assert.equal(result, 'not kept')
    assert.equal(await locker.run('key', () => 'anew'), 'anew')
  },
)

test('L5 invalidation - after the longest ttl an idle Redis holds no key of the locker', async () => {
  await using t = await setup()
  await using locker = new Locker({ redis: t.redis, ttl: 200, lease: 100, errorTtl: 100 })
  await locker.run('value', () => 1)
  await rejectionOf(locker.run('failure', () => Promise.reject(new Error('x'))))
  await (await leaseOf(locker, 'released')).release()
  await locker.run('invalidated', () => 1)
  await locker.invalidate('invalidated', 'never')
  const left = async () => (await t.server.call('DBSIZE')) === 0
  for (const key of (await t.server.call('KEYS', '*')) as string[]) {
    assert.ok(Number(await t.server.call('PTTL', key)) > 0, key)
  }
  await until(left, { what: 'the keys to expire', timeout: 5000 })
})
