import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { Lease, Locker, type LockerOptions } from '../../src/index.ts'
import { type Clock, systemClock } from '../../src/kernel/time.ts'
import { ResultCache } from '../../src/locker/cache/result-cache.ts'
import { EPSILON } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** A lost subscription is detected within this time, ms. */
const DETECTED = 2000

/** A clock whose time the test sets. */
class SettableClock implements Clock {
  time = 1000
  now = () => this.time
  after = systemClock.after
}

function cacheOn(clock: Clock, options: { max?: number; maxSize?: number } = {}): ResultCache {
  return new ResultCache({ max: 100, maxSize: 1_000_000, ...options }, clock)
}

/** Caches a result of `size` bytes until `until`. */
function keep(
  cache: ResultCache,
  key: string,
  value: unknown,
  fence: number,
  size: number,
  until: number,
): void {
  const times = { freshUntil: until, staleUntil: until }
  cache.set(key, { record: `r:${key}`, result: value, fence, tags: [], bytes: size, ...times })
}

/** The cached result of a key at the time of the clock. */
function kept(cache: ResultCache, clock: Clock, key: string): unknown {
  return cache.get(key, clock.now())?.promise
}

test('cache - a result is cached until its ttl has passed, and no longer', async () => {
  const clock = new SettableClock()
  const cache = cacheOn(clock)
  keep(cache, 'key', 'value', 1, 10, 1500)
  assert.equal(await kept(cache, clock, 'key'), 'value')
  clock.time = 1499
  assert.equal(await kept(cache, clock, 'key'), 'value')
  clock.time = 1501
  assert.equal(kept(cache, clock, 'key'), undefined)
  keep(cache, 'late', 'value', 1, 10, 1400)
  assert.equal(kept(cache, clock, 'late'), undefined)
})

test('cache - a stale result is cached while some callers accept it', () => {
  const clock = new SettableClock()
  const cache = cacheOn(clock)
  const times = { freshUntil: 1500, staleUntil: 2000 }
  cache.set('key', { record: 'r:key', result: 'value', fence: 1, tags: [], bytes: 10, ...times })
  clock.time = 1999
  assert.deepEqual(
    [cache.get('key', clock.now())?.result, cache.get('key', clock.now())?.freshUntil],
    ['value', 1500],
  )
  clock.time = 2000
  assert.equal(cache.get('key', clock.now()), undefined)
  assert.deepEqual([cache.size, cache.bytes], [0, 0])
})

test('S4 cache - a tag drops the results that carry it, and no others', () => {
  const clock = new SettableClock()
  const cache = cacheOn(clock)
  const times = { freshUntil: 5000, staleUntil: 5000 }
  const set = (key: string, fence: number, tags: string[]) =>
    cache.set(key, { record: `r:${key}`, result: key, fence, tags, bytes: 10, ...times })
  const kept = () => ['one', 'both', 'other', 'none'].filter((key) => cache.get(key, clock.now()))
  set('one', 1, ['a'])
  set('both', 1, ['a', 'b'])
  set('other', 1, ['b'])
  set('none', 1, [])
  cache.invalidateTag('unknown')
  assert.deepEqual(kept(), ['one', 'both', 'other', 'none'])
  cache.invalidateTag('a')
  assert.deepEqual(kept(), ['other', 'none'])
  // A new result replaces the tags as well.
  set('other', 2, ['a'])
  cache.invalidateTag('b')
  assert.deepEqual(kept(), ['other', 'none'])
  cache.invalidateTag('a')
  assert.deepEqual(kept(), ['none'])
  cache.clear()
  set('one', 3, [])
  cache.invalidateTag('a')
  assert.deepEqual(kept(), ['one'], 'the tags of what was cleared are forgotten')
})

test('S4 cache - an older result never replaces a newer one', async () => {
  const clock = new SettableClock()
  const cache = cacheOn(clock)
  keep(cache, 'key', 'new', 7, 10, 5000)
  keep(cache, 'key', 'old', 6, 10, 9000)
  assert.equal(await kept(cache, clock, 'key'), 'new')
  keep(cache, 'key', 'newest', 8, 10, 2000)
  assert.equal(await kept(cache, clock, 'key'), 'newest')
})

test('S4 cache - an invalidation drops results up to its fence, and no newer ones', async () => {
  const clock = new SettableClock()
  const cache = cacheOn(clock)
  keep(cache, 'key', 'value', 7, 10, 5000)
  cache.invalidate('r:key', 6)
  cache.invalidate('r:other', 9)
  assert.equal(await kept(cache, clock, 'key'), 'value')
  cache.invalidate('r:key', 7)
  assert.equal(kept(cache, clock, 'key'), undefined)
})

test('L5 cache - the cache is bounded in entries and bytes, and a result that is too large is not cached', async () => {
  const clock = new SettableClock()
  const cache = cacheOn(clock, { max: 10, maxSize: 10_000 })
  for (let index = 0; index < 100; index++) keep(cache, `key${index}`, index, 1, 10, 5000)
  assert.equal(cache.size, 10)
  assert.equal(await kept(cache, clock, 'key99'), 99)
  assert.equal(kept(cache, clock, 'key0'), undefined)
  for (let index = 0; index < 10; index++) keep(cache, `large${index}`, index, 1, 4000, 5000)
  assert.ok(cache.size <= 2 && cache.bytes <= 10_000, 'cache.size <= 2 && cache.bytes <= 10_000')
  keep(cache, 'large9', 'too large', 2, 20_000, 5000)
  assert.equal(kept(cache, clock, 'large9'), undefined)
  cache.clear()
  assert.deepEqual([cache.size, cache.bytes], [0, 0])
  // Eviction removes the record of a key too: dropping the evicted result must not drop a later one.
  keep(cache, 'again', 1, 5, 10, 5000)
  cache.invalidate('r:key0', 9)
  assert.equal(await kept(cache, clock, 'again'), 1)
})

async function two(options: LockerOptions = {}) {
  const t = await setup()
  const one = new Locker({ redis: t.redis, ...options })
  const other = new Locker({ redis: t.redis })
  for (const locker of [one, other]) {
    await locker.run(`warm ${locker === one}`, () => 1)
    await until(() => locker.stats().subscribed, { what: 'the subscription' })
  }
  return {
    server: t.server,
    one,
    other,
    async [Symbol.asyncDispose]() {
      await Promise.all([one.close({ grace: 0 }), other.close({ grace: 0 })])
      await t[Symbol.asyncDispose]()
    },
  }
}

test('cache - a hit is the same object for every caller, and sends no command', async () => {
  await using w = await two()
  const result = await w.one.run('key', () => ({ a: 1 }))
  await using monitor = await w.server.monitor()
  const hits = await Promise.all([
    w.one.run('key', () => ({})),
    w.one.run('key', () => ({})),
    w.one.request('key'),
  ])
  const [first, second, third] = hits
  assert.equal(first, result)
  assert.equal(second, first)
  assert.deepEqual(third, { status: 'done', result: { a: 1 } })
  const commands = (await monitor.lines()).filter(({ command }) => !['ping', 'echo'].includes(command))
  assert.deepEqual(commands, [])
  assert.equal(w.one.stats().localHits, 3)
  assert.ok(w.one.stats().cachedBytes > 0, 'w.one.stats().cachedBytes > 0')
})

test('cache - a ttl ends during a loop of awaited hits that never yields to the event loop', async () => {
  await using locker = new Locker()
  const end = performance.now() + 5_000
  let runs = 0
  while (runs < 3 && performance.now() < end) await locker.run('key', () => ++runs, { ttl: 30 })
  assert.equal(runs, 3)
})

test('cache - a ttl ends while the event loop is blocked', async () => {
  await using locker = new Locker()
  let runs = 0
  const next = () => locker.run('key', () => ++runs, { ttl: 30 })
  await next()
  const end = performance.now() + 40
  while (performance.now() < end);
  assert.equal(await next(), 2)
})

test('cache - options are validated on a miss; a hit reads only the options that decide it', async () => {
  await using locker = new Locker()
  const misspelt = { tll: 1 } as unknown as { ttl: number }
  const wrong: [unknown, unknown][] = [
    [() => 1, misspelt],
    [() => 1, { ttl: -1 }],
    ['work', {}],
  ]
  for (const [work, options] of wrong) {
    await assert.rejects(locker.run('key', work as () => number, options as object), TypeError)
  }
  await locker.run('key', () => 1)
  for (const [work, options] of wrong) {
    assert.equal(await locker.run('key', work as () => number, options as object), 1)
    await assert.rejects(
      locker.run('key', work as () => number, { ...(options as object), refresh: true }),
      TypeError,
    )
  }
  for (const [key, options] of [
    ['', {}],
    [1, {}],
    ['key', null],
  ] as [string, object][]) {
    await assert.rejects(
      locker.run(key, () => 1, options),
      TypeError,
    )
    await assert.rejects(locker.request(key, options), TypeError)
  }
})

test('cache - with false nothing is cached', async () => {
  await using w = await two({ cache: false })
  await w.one.run('key', () => 'value')
  assert.equal(await w.one.run('key', () => 'unused'), 'value')
  assert.deepEqual([w.one.stats().cached, w.one.stats().localHits, w.one.stats().hits], [0, 0, 1])
})

test('cache - the options set its bounds', async () => {
  await using w = await two({ cache: { max: 3 } })
  for (let index = 0; index < 10; index++) await w.one.run(`key${index}`, () => index)
  assert.equal(w.one.stats().cached, 3)
})

test('S4 cache - a ttl counts from before the claim was sent, so the cache never outlives the record', async () => {
  await using w = await two()
  await w.other.run('key', () => 'value', { ttl: 400 })
  assert.equal(await w.one.run('key', () => 'unused'), 'value')
  const gone = async () => (await w.other.peek('key')).status === 'free'
  await until(gone, { what: 'the record to end', every: 1 })
  await sleep(5) // the server counts whole milliseconds, and the cache looks at the time once in one
  assert.equal(await w.one.run('key', () => 'anew'), 'anew')
})

test('S4 cache - a refresh or an invalidation elsewhere drops the cached result', async () => {
  await using w = await two()
  const value = { now: 'old' }
  const ask = () => w.one.run('key', () => ({ ...value }))
  await ask()
  await w.other.run('key', () => ({ now: 'refreshed' }), { refresh: true })
  await until(async () => (await ask()).now === 'refreshed', {
    what: 'the refreshed one',
    timeout: DETECTED + EPSILON,
  })
  value.now = 'after the invalidation'
  await w.other.invalidate('key')
  await until(async () => (await ask()).now === value.now, { what: 'the drop', timeout: DETECTED + EPSILON })
  value.now = 'after our own invalidation'
  await w.one.invalidate('key')
  assert.equal((await ask()).now, value.now)
})

test('S4 cache - a result that was invalidated during its claim is not cached', async () => {
  await using w = await two()
  const gate = pDefer<string>()
  const run = w.one.run('key', () => gate.promise)
  await until(() => w.one.stats().running === 1, { what: 'the work' })
  await w.other.invalidate('key')
  gate.resolve('begun before')
  assert.equal(await run, 'begun before')
  assert.equal(await w.one.run('key', () => 'begun after'), 'begun after')
})

test('S4 cache - while the subscription is lost nothing is served or cached, and everything is dropped', async () => {
  await using w = await two()
  const { cached } = w.one.stats()
  await w.one.run('key', () => 'value')
  assert.equal(w.one.stats().cached, cached + 1)
  await w.server.call('ACL', 'SETUSER', 'default', 'resetchannels')
  await w.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => !w.one.stats().subscribed, { what: 'the loss to be seen', timeout: DETECTED + EPSILON })
  const { hits, localHits } = w.one.stats()
  assert.equal(await w.one.run('key', () => 'unused'), 'value')
  assert.equal(await w.one.run('deaf', () => 'value'), 'value')
  assert.equal(w.one.stats().hits, hits + 1)
  assert.equal(w.one.stats().localHits, localHits)
  // Kept for outages of Redis.
  assert.equal(w.one.stats().cached, cached + 1)
  await w.server.call('ACL', 'SETUSER', 'default', 'allchannels')
  await until(() => w.one.stats().subscribed, { what: 'the subscription' })
  assert.equal(w.one.stats().cached, 0)
  await w.one.run('key', () => 'unused')
  assert.equal(w.one.stats().cached, 1)
})

test('cache - failures and results with ttl 0 are not cached', async () => {
  await using w = await two({ errorTtl: 60_000 })
  const before = w.one.stats().cached
  await w.one.run('bad', () => Promise.reject(new Error('x'))).catch(() => {})
  await w.one.run('brief', () => 1, { ttl: 0 })
  assert.equal(w.one.stats().cached, before)
})

test('cache - the result of a lease is cached by the publisher and by waiters', async () => {
  await using w = await two()
  const lease = await w.one.request('key')
  assert.ok(lease instanceof Lease, 'lease instanceof Lease')
  const waits = w.other.run('key', () => 'x')
  await until(async () => (await w.one.peek('key')).lock?.parked === 1, { what: 'the park' })
  await lease.publish('value')
  assert.equal(await waits, 'value')
  assert.equal(await w.other.run('key', () => 'x'), 'value')
  assert.equal(w.other.stats().localHits, 1)
})

test('cache - a refresh bypasses the cache, and replaces the result', async () => {
  await using w = await two()
  await w.one.run('key', () => 'old')
  assert.equal(await w.one.run('key', () => 'new', { refresh: true }), 'new')
  assert.equal(await w.one.run('key', () => 'unused'), 'new')
})
