import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Locker, type LockerOptions, MemoryStore } from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { RedisCluster } from '../support/cluster.ts'
import { lockersIn, withAndWithoutCache } from '../support/lockers.ts'
import { soon, until } from '../support/wait.ts'

/** A work that counts its runs. */
function counter() {
  let count = 0
  return { next: () => ++count }
}

const TAGGED = { tags: ['user:1', 'reports'] }

withAndWithoutCache(
  'tags - invalidating a tag removes all results that carry it, and no others',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const { next } = counter()
    await one.run('a', next, TAGGED)
    await one.run('b', next, { tags: ['user:1'] })
    await one.run('c', next, { tags: ['reports'] })
    await one.run('d', next)
    const all = (locker: Locker) => Promise.all(['a', 'b', 'c', 'd'].map((key) => locker.run(key, () => 0)))
    assert.deepEqual(await all(other), [1, 2, 3, 4])
    await other.invalidateTags('user:1')
    assert.deepEqual(await all(other), [0, 0, 3, 4])
    const followed = async () => (await one.run('a', next)) !== 1
    await until(followed, { what: 'the invalidation to arrive' })
  },
)

withAndWithoutCache(
  'S4 tags - a caller after an invalidation receives no result of a work that started before it',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const { next } = counter()
    const gate = pDefer<void>()
    const slow = async () => {
      const mine = next()
      await gate.promise
      return mine
    }
    const before = [one, other].map((locker) => locker.run('k', slow, TAGGED))
    await until(() => one.stats().parks + other.stats().parks === 1, { what: 'one to wait' })
    await other.invalidateTags('reports')
    // The invalidation reaches a process with a cache a little later.
    const strict = options.cache === false ? [one, other] : [other]
    const after = strict.map((locker) => locker.run('k', slow, TAGGED))
    assert.equal(await soon(Promise.race(after), 50), 'pending')
    gate.resolve()
    assert.deepEqual(await Promise.all(before), [1, 1])
    const results = await Promise.all(after)
    assert.ok(
      results.every((result) => result > 1),
      `served ${results}`,
    )
    assert.equal(await other.run('k', next, TAGGED), results[0])
  },
)

withAndWithoutCache('tags - stale values are removed as well', async (world, options) => {
  const locker = await world.open(options)
  const { next } = counter()
  const swr = { ttl: 0, staleWhileRevalidate: 60_000, ...TAGGED }
  await locker.run('k', next, { ...swr, ttl: 1 })
  await until(async () => (await locker.peek('k')).status !== 'done', {
    what: 'the result to expire',
    every: 2,
  })
  await locker.invalidateTags('user:1')
  assert.equal(await locker.run('k', next, { ...swr, ttl: 60_000 }), 2)
})

withAndWithoutCache('tags - hostile tags do not collide', async (world, options) => {
  const locker = await world.open(options)
  const { next } = counter()
  const names = ['a b', 'a\nb', '1 a', '{x}', '\0', 'a', '__proto__', 'é'.repeat(300)]
  for (const [index, name] of names.entries()) await locker.run(`k${index}`, next, { tags: [name] })
  await locker.run('all', next, { tags: names })
  await locker.invalidateTags('a b')
  assert.equal(await locker.run('k0', next), names.length + 2)
  assert.equal(await locker.run('all', next, { tags: names }), names.length + 3)
  for (let index = 1; index < names.length; index++)
    assert.equal(await locker.run(`k${index}`, next), index + 1)
})

test('tags - a result whose tag has lost its version does not match', async () => {
  await using world = await lockersIn('redis')
  const { next } = counter()
  const [one, other] = [await world.open(), await world.open({ cache: false })]
  await one.run('k', next, TAGGED)
  assert.equal(await other.run('k', next), 1)
  await world.t?.server.call('DEL', recordKey('soloflight', 'reports', 't'))
  assert.equal(await other.run('k', next, TAGGED), 2)
  assert.equal(await other.run('k', next, TAGGED), 2)
})

test('tags - a tagged hit in Redis costs one script more than an untagged one, a hit in the cache nothing', async () => {
  await using world = await lockersIn('redis')
  const { next } = counter()
  const [writer, reader] = [await world.open(), await world.open({ cache: false })]
  await writer.run('tagged', next, TAGGED)
  await writer.run('plain', next)
  await reader.run('tagged', next)
  await reader.run('plain', next)
  const server = world.t?.server
  assert.ok(server, 'a server')
  await using monitor = await server.monitor()
  const asked = async (locker: Locker, key: string) => {
    const before = (await monitor.lines()).length
    await locker.run(key, next)
    const lines = (await monitor.lines()).slice(before)
    return lines.filter(({ command }) => command.startsWith('eval')).length
  }
  assert.deepEqual(
    [await asked(reader, 'plain'), await asked(reader, 'tagged'), await asked(writer, 'tagged')],
    [0, 1, 0],
  )
})

test('L5 tags - versions of tags expire with the results that carry them', async () => {
  await using world = await lockersIn('redis')
  const locker = await world.open()
  await locker.run('k', () => 1, { ...TAGGED, ttl: 500 })
  const left = Number(await world.t?.server.call('PTTL', recordKey('soloflight', 'reports', 't')))
  assert.ok(left > 500 && left <= 61_000, `its version is kept for ${left} ms`)
})

test('tags - on different nodes of a cluster', async () => {
  await using cluster = await RedisCluster.start({ masters: 3 })
  const open = async (options: LockerOptions = {}) =>
    new Locker({ redis: await cluster.client(), ...options })
  await using one = await open()
  await using other = await open({ cache: false })
  const { next } = counter()
  const tags = ['a', 'b', 'c', 'd']
  for (let index = 0; index < 10; index++) await one.run(`k${index}`, next, { tags })
  await other.invalidateTags('c')
  for (let index = 0; index < 10; index++)
    assert.equal(await other.run(`k${index}`, next, { tags }), 11 + index)
})

test('tags - invalid tags are refused', async () => {
  await using world = await lockersIn('memory')
  const locker = await world.open()
  for (const tags of ['a', [''], [1], Array(101).fill('x')] as unknown as string[][]) {
    await assert.rejects(
      locker.run('k', () => 1, { tags }),
      TypeError,
    )
  }
  await assert.rejects(locker.invalidateTags(''), TypeError)
})

withAndWithoutCache(
  'tags - a result has the tags of the call whose work produced it, whichever call came first',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const { next } = counter()
    const held = await other.request('k')
    assert.equal(held.status, 'locked')
    const leaves = new AbortController()
    // The first waiter has no tags, and leaves. The next one runs the work.
    const first = one.run('k', next, { signal: leaves.signal })
    const second = one.run('k', next, TAGGED)
    await until(async () => (await one.peek('k')).lock?.parked !== 0, { what: 'them to wait' })
    leaves.abort()
    await assert.rejects(first)
    if (held.status === 'locked') await held.release()
    assert.equal(await second, 1)
    await one.invalidateTags('reports')
    assert.equal(await one.run('k', next, TAGGED), 2)
  },
)

withAndWithoutCache(
  'S4 tags - kept failures and values with ttl 0 carry tags as well',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const kept = { ...TAGGED, errorTtl: 60_000 }
    const broken = () => Promise.reject(new Error('broken'))
    await assert.rejects(one.run('failing', broken, kept))
    await assert.rejects(other.run('failing', () => 1, kept))
    await other.invalidateTags('reports')
    assert.equal(await other.run('failing', () => 2, kept), 2)
    // A value with ttl 0 of a work that started before an invalidation does not reach later callers.
    const gate = pDefer<void>()
    const before = one.run(
      'unkept',
      async ({ noStore }) => {
        noStore({ bypassFor: 0 })
        await gate.promise
        return 'old'
      },
      TAGGED,
    )
    await until(async () => (await other.peek('unkept')).status === 'locked', { what: 'the work' })
    await other.invalidateTags('user:1')
    const after = other.run('unkept', () => 'new', TAGGED)
    await until(async () => (await one.peek('unkept')).lock?.parked === 1, { what: 'the other to wait' })
    gate.resolve()
    assert.deepEqual([await before, await after], ['old', 'new'])
  },
)

withAndWithoutCache(
  'S4 tags - a stale value is not served after its tag was invalidated, whichever call tagged it',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const swr = { ttl: 30, staleWhileRevalidate: 60_000 }
    await one.run('k', () => 'old', { ...swr, ...TAGGED })
    await until(async () => (await other.peek('k')).status !== 'done', {
      what: 'the result to expire',
      every: 5,
    })
    const gate = pDefer<string>()
    // The reader passes no tags.
    assert.equal(await other.run('k', () => gate.promise, swr), 'old')
    await other.invalidateTags('reports')
    const late = other.run('k', () => gate.promise, swr)
    assert.equal(await soon(late, 100), 'pending')
    gate.resolve('new')
    assert.equal(await late, 'new')
  },
)

test('L5 tags - in memory, versions of tags are bounded as results are', async () => {
  const store = new MemoryStore({ maxRecords: 100 })
  await using locker = new Locker({ store, cache: false })
  for (let index = 0; index < 500; index++)
    await locker.run(`k${index}`, () => index, { tags: [`t${index}`] })
  const found = await Promise.all(
    Array.from({ length: 500 }, (_, index) =>
      store.tagVersions([recordKey('soloflight', `t${index}`, 't')], 0),
    ),
  )
  assert.equal(found.flat().filter((version) => version > 0).length, 100)
})
