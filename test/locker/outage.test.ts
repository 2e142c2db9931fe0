// Redis is away: one call waits for it. Then callers fail, run locally, or are served results that this process has kept.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, test } from 'node:test'
import { Redis } from 'ioredis'
import pDefer from 'p-defer'
import { channelName, Locker, type LockerOptions, UnavailableError } from '../../src/index.ts'
import { CircuitBreaker } from '../../src/kernel/redis/server.ts'
import { fromRawHeaders, HttpCache, type HttpCacheOptions } from '../../src/memoize/index.ts'
import { RedisCluster } from '../support/cluster.ts'
import { cutOff, onCommands, onSubscription, type Scene, scene } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { freePort } from '../support/ports.ts'
import { RedisServer } from '../support/redis-server.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

/** `unavailableAfter`, ms. A call that is refused at once takes much less. */
const SILENT = 1500
const CALLS = 10

describe('the breaker', () => {
  test('U5 breaker - closed: each call waits for a lost connection for its unavailableAfter', () => {
    const breaker = new CircuitBreaker()
    assert.equal(breaker.remainingWait(100, 5), Number.POSITIVE_INFINITY)
    breaker.onDisconnected(1000)
    breaker.onDisconnected(1050)
    assert.deepEqual(breaker.state, { kind: 'closed', silentSince: 1000 })
    assert.equal(breaker.remainingWait(100, 1040), 60)
    assert.equal(breaker.remainingWait(500, 1040), 460)
    breaker.onConnected(1060)
    assert.deepEqual(breaker.state, { kind: 'closed', silentSince: undefined })
    breaker.onProbe()
    assert.deepEqual(breaker.state, { kind: 'closed', silentSince: undefined })
  })

  test('U5 breaker - open: no call waits once the outage has lasted that long', () => {
    const breaker = new CircuitBreaker()
    breaker.onDisconnected(1000)
    breaker.onUnavailable(1090)
    assert.deepEqual(breaker.state, { kind: 'open', since: 1000 })
    assert.equal(breaker.remainingWait(100, 1100), 0)
    assert.equal(breaker.remainingWait(500, 1100), 400)
    breaker.onDisconnected(2000)
    breaker.onUnavailable(2000)
    assert.deepEqual(breaker.state, { kind: 'open', since: 1000 })
    breaker.onReply()
    assert.equal(breaker.state.kind, 'closed')
  })

  test('U5 breaker - half-open: the probe decides', () => {
    const breaker = new CircuitBreaker()
    breaker.onUnavailable(1000)
    breaker.onProbe()
    assert.deepEqual(breaker.state, { kind: 'half-open', since: 1000 })
    breaker.onDisconnected(1200)
    assert.deepEqual(breaker.state, { kind: 'open', since: 1000 })
    breaker.onConnected(1300)
    assert.deepEqual(breaker.state, { kind: 'half-open', since: 1300 })
    assert.equal(breaker.remainingWait(100, 1350), 50)
    breaker.onUnavailable(1000)
    assert.deepEqual(breaker.state, { kind: 'open', since: 1300 })
    breaker.onConnected(1400)
    breaker.onReply()
    assert.deepEqual(breaker.state, { kind: 'closed', silentSince: undefined })
  })
})

/** Outages, and how each ends. */
const OUTAGES: Record<string, { begin(s: Scene): unknown; end(s: Scene): unknown }> = {
  'refuses connections': { begin: cutOff, end: ({ t }) => t.proxy.refuse(false) },
  'is frozen': { begin: ({ t }) => t.server.freeze(), end: ({ t }) => t.server.thaw() },
  'is in a black hole': {
    begin: ({ t }) => t.proxy.blackhole(true),
    end: ({ t }) => t.proxy.blackhole(false),
  },
}

const refused = (locker: Locker, options = {}) =>
  assert.rejects(
    locker.run('k', () => 1, options),
    UnavailableError,
  )

for (const [away, { begin, end }] of Object.entries(OUTAGES)) {
  describe(`Redis ${away}`, () => {
    test(`U5 outage - ${away}: one call waits, the others are refused at once, until Redis is back`, async () => {
      await using s = await scene({ unavailableAfter: SILENT })
      await begin(s)
      assert.ok((await took(() => refused(s.locker))) < SILENT + EPSILON)
      const ms = await took(async () => {
        for (let index = 0; index < CALLS; index += 1) await refused(s.locker)
      })
      assert.ok(ms < SILENT, `${CALLS} calls took ${ms} ms`)
      // A call with a longer unavailableAfter waits for the rest of it.
      const patient = new Locker({ redis: s.t.redis, cache: false, unavailableAfter: 30_000 })
      await end(s)
      assert.ok(
        await until(() => s.locker.run('back', () => true), { what: 'Redis to be back', timeout: 15_000 }),
      )
      for (let index = 0; index < CALLS; index += 1) await s.locker.run(`back ${index}`, () => index)
      await patient.close()
    })

    test(`U5 outage - ${away}: works run at once, unshared`, async () => {
      await using s = await scene({ unavailableAfter: SILENT, onUnavailable: 'local' })
      await begin(s)
      const shared = () => s.locker.run('k', ({ shared }) => shared)
      assert.equal(await shared(), false)
      const ms = await took(async () => {
        for (let index = 0; index < CALLS; index += 1) assert.equal(await shared(), false)
      })
      assert.ok(ms < SILENT, `${CALLS} calls took ${ms} ms`)
      await end(s)
      await until(shared, { what: 'results to be shared again', timeout: 15_000 })
    })
  })
}

describe('a short outage', () => {
  test('U5 outage - calls wait for a connection that is restored within unavailableAfter', async () => {
    await using s = await scene()
    await cutOff(s)
    const calls = Array.from({ length: CALLS }, (_, index) => s.locker.run(`k${index}`, () => index))
    await until(() => s.locker.stats().pendingCommands > 0, { what: 'the claims to wait' })
    await s.t.proxy.refuse(false)
    assert.deepEqual(await Promise.all(calls), [...calls.keys()])
  })

  test('U5 outage - calls wait for a connection that was never up', async () => {
    const port = await freePort()
    await using locker = new Locker({ redis: { port }, cache: false, unavailableAfter: 10_000 })
    const first = locker.run('first', () => 1)
    await until(() => locker.stats().pendingCommands > 0, { what: 'the read to wait' })
    const second = locker.run('second', () => 2)
    await using _server = await RedisServer.start({ port })
    assert.deepEqual(await Promise.all([first, second]), [1, 2])
    await locker.close()
  })
})

describe('half-open', () => {
  test('U5 half-open - a connection that is restored but silent: one probe is sent, and calls wait once', async () => {
    await using t = await setup({ proxy: true })
    const redis = new Redis({ ...t.redis, protocol: 2, enableReadyCheck: false, disableClientInfo: true })
    redis.on('error', () => {})
    await using locker = new Locker({ redis, cache: false, unavailableAfter: SILENT })
    await locker.run('warm', () => 1)
    t.proxy.stall(true)
    await refused(locker)
    t.proxy.cut(onCommands)
    // The client resends its first command. No call waits for it, so it was replaced by a PING.
    const sent = () => t.proxy.connections.findLast(onCommands)?.commands.join()
    await until(() => sent() === 'PING,HGET', { what: 'the probe' })
    const both = await took(() => Promise.all([refused(locker), refused(locker)]))
    assert.ok(both < SILENT + EPSILON)
    const ms = await took(async () => {
      for (let index = 0; index < CALLS; index += 1) await refused(locker)
    })
    assert.ok(ms < SILENT, `${CALLS} calls took ${ms} ms`)
    assert.equal(sent(), 'PING,HGET')
    t.proxy.stall(false)
    assert.ok(await until(() => locker.run('back', () => true), { what: 'the probe to be answered' }))
    await locker.close()
    redis.disconnect()
  })

  for (const way of ['frozen', 'killed'] as const) {
    test(`U5 cluster - a node that is ${way}: one call waits for it, the other nodes are not affected, a probe finds it`, async () => {
      await using cluster = await RedisCluster.start()
      await Promise.all(
        cluster.nodes.map((node) => node.call('CONFIG', 'SET', 'cluster-require-full-coverage', 'no')),
      )
      const [lost, sound] = cluster.nodes
      assert.ok(lost && sound)
      const keysOn = async (node: RedisServer) => {
        const keys: string[] = []
        for (let index = 0; keys.length < CALLS; index += 1) {
          const slot = await cluster.slotOf(`soloflight:1:k/${index}`)
          if ((await cluster.ownerOf(slot)) === node) keys.push(String(index))
        }
        return keys
      }
      const [there, here] = [await keysOn(lost), await keysOn(sound)]
      await using locker = new Locker({
        redis: await cluster.client(),
        cache: false,
        unavailableAfter: SILENT,
      })
      const run = (key: string) => locker.run(key, () => true, { ttl: 0 })
      for (const key of [...there, ...here]) await run(key)
      if (way === 'frozen') await lost.freeze()
      else await lost.kill()
      await assert.rejects(run(there[0] as string), UnavailableError)
      const ms = await took(async () => {
        for (const [index, key] of there.entries()) {
          await assert.rejects(run(key), UnavailableError)
          assert.ok(await run(here[index] as string))
        }
      })
      assert.ok(ms < SILENT, `${CALLS} calls took ${ms} ms`)
      if (way === 'frozen') lost.thaw()
      else await lost.restart()
      const back = () => run(there[0] as string)
      assert.ok(await until(back, { what: 'the node to be back', timeout: 15_000 }))
      for (const key of there) assert.ok(await run(key))
      await locker.close()
    })
  }
})

/** A locker that has kept a result and is cut off from Redis. */
async function away(options: LockerOptions, kept: (locker: Locker) => Promise<unknown>): Promise<Scene> {
  const s = await scene({ cache: {}, unavailableAfter: 300, ...options })
  await kept(s.locker)
  assert.ok(s.locker.stats().cached > 0)
  await cutOff(s)
  await until(() => !s.locker.stats().subscribed, { what: 'the subscription to be lost' })
  return s
}

const isBack = ({ locker, t }: Scene) =>
  Promise.all([
    t.proxy.refuse(false),
    until(() => locker.stats().subscribed, { what: 'the subscription to be back' }),
  ])

const never = (): never => assert.fail('it is kept')

describe("onUnavailable: 'cached'", () => {
  test('U5 cached - a kept result is served, and reported as such', async () => {
    await using s = await away({ onUnavailable: 'cached' }, (locker) => locker.run('k', () => 'kept'))
    const events: unknown[] = []
    const listener = (event: unknown) => events.push(event)
    subscribe(channelName('unverified'), listener)
    assert.equal(await s.locker.run('k', never), 'kept')
    unsubscribe(channelName('unverified'), listener)
    assert.deepEqual(events, [{ key: 'k', staleFor: 0 }])
    assert.equal(s.locker.stats().unverified, 1)
    assert.equal(s.locker.stats().localHits, 0)
    assert.deepEqual(await s.locker.request('k'), { status: 'done', result: 'kept' })
    assert.deepEqual(await s.locker.runMany(['k'], never), ['kept'])
    const ms = await took(async () => {
      for (let index = 0; index < 100; index += 1) await s.locker.run('k', never)
    })
    assert.ok(ms < 300 * 100)
    // Not for callers that refresh, want a newer result, or do not accept kept ones.
    await assert.rejects(s.locker.run('k', never, { refresh: true }), UnavailableError)
    await assert.rejects(s.locker.run('k', never, { onUnavailable: 'fail' }), UnavailableError)
    await assert.rejects(s.locker.run('other', never), UnavailableError)
  })

  test('U5 cached - by default the call is refused, although a result is kept', async () => {
    await using s = await away({}, (locker) => locker.run('k', () => 'kept'))
    await assert.rejects(s.locker.run('k', never), UnavailableError)
  })

  test("U5 cached - 'cached-local' runs the work for keys without a kept result, and serves kept results meanwhile", async () => {
    await using s = await away({ onUnavailable: 'cached-local' }, (locker) => locker.run('k', () => 'kept'))
    assert.equal(await s.locker.run('k', never), 'kept')
    assert.equal(await s.locker.run('other', ({ shared }) => shared), false)
    const end = pDefer<string>()
    const anew = s.locker.run('k', () => end.promise, { refresh: true })
    await until(() => s.locker.stats().running === 1, { what: 'the work to run' })
    assert.equal(await s.locker.run('k', never), 'kept')
    end.resolve('anew')
    assert.equal(await anew, 'anew')
  })

  test('U5 cached - a stale result is served within staleIfError, not beyond', async () => {
    const options = { onUnavailable: 'cached', ttl: 20, staleIfError: 60_000 } as const
    await using s = await away(options, (locker) => locker.run('k', () => 'kept'))
    const past: number[] = []
    const listener = (event: unknown) => past.push((event as { staleFor: number }).staleFor)
    subscribe(channelName('unverified'), listener)
    assert.equal(await s.locker.run('k', never), 'kept')
    unsubscribe(channelName('unverified'), listener)
    assert.ok((past[0] as number) > 0)
    await assert.rejects(s.locker.run('k', never, { staleIfError: 1 }), UnavailableError)
  })

  test('S4 cached - a result is not served after an invalidation that could not be sent', async () => {
    const kept = async (locker: Locker) => {
      await locker.run('k', () => 'kept')
      await locker.run('tagged', () => 'kept', { tags: ['t'] })
      await locker.run('untouched', () => 'kept')
    }
    await using s = await away({ onUnavailable: 'cached' }, kept)
    await assert.rejects(s.locker.invalidate('k'), UnavailableError)
    await assert.rejects(s.locker.invalidateTags('t'), UnavailableError)
    await assert.rejects(s.locker.run('k', never), UnavailableError)
    await assert.rejects(s.locker.run('tagged', never), UnavailableError)
    assert.equal(await s.locker.run('untouched', never), 'kept')
  })

  test('S4 cached - a result that was invalidated elsewhere meanwhile is not served after Redis is back', async () => {
    await using s = await away({ onUnavailable: 'cached' }, (locker) => locker.run('k', () => 'old'))
    await s.other.invalidate('k')
    assert.equal(await s.other.run('k', () => 'new'), 'new')
    assert.equal(await s.locker.run('k', never), 'old')
    await isBack(s)
    assert.equal(await until(() => s.locker.run('k', () => 'anew'), { what: 'Redis to be back' }), 'new')
    await cutOff(s)
    await until(() => !s.locker.stats().subscribed, { what: 'the subscription to be lost' })
    assert.equal(await s.locker.run('k', never), 'new')
  })

  test('S4 cached - while only the subscription is lost, Redis is read', async () => {
    await using s = await scene({ cache: {}, onUnavailable: 'cached' })
    await s.locker.run('k', () => 'old')
    s.t.proxy.blackhole(true, onSubscription)
    await until(() => !s.locker.stats().subscribed, { what: 'the subscription to be lost' })
    await s.other.invalidate('k')
    assert.equal(await s.locker.run('k', () => 'new'), 'new')
    assert.equal(s.locker.stats().unverified, 0)
  })

  test('S4 cached - while the subscription is up, fresh results are served although commands fail', async () => {
    await using s = await scene({ cache: {} })
    await s.locker.run('k', () => 'kept')
    s.t.proxy.stall(true, onCommands)
    assert.equal(await s.locker.run('k', never), 'kept')
    s.t.proxy.stall(false)
  })
})

describe('HTTP while Redis is away', () => {
  const request = (more: Record<string, string> = {}, method = 'GET', url = '/page') => ({
    method,
    url,
    headers: { host: 'example.org', ...more },
  })
  const origin = (answer: string, cacheControl = 'max-age=600') => {
    const asked: unknown[] = []
    const ask = (each: unknown) => {
      asked.push(each)
      return { status: 200, headers: { 'cache-control': cacheControl }, body: answer }
    }
    return { asked, ask }
  }
  const cached = async (options: HttpCacheOptions, cacheControl?: string) => {
    const old = origin('old', cacheControl)
    let cache: HttpCache | undefined
    const s = await away({}, async (locker) => {
      cache = new HttpCache(locker, options)
      await cache.handle(request(), old.ask)
    })
    assert.ok(cache)
    const anew = origin('new')
    const handle = cache.handle.bind(cache)
    const get = async (more?: Record<string, string>, method?: string, url?: string) => {
      const { status, headers, body } = await handle(request(more, method, url), anew.ask)
      return { status, cacheStatus: fromRawHeaders(headers)['cache-status'], body: String(body) }
    }
    return { s, get, anew, [Symbol.asyncDispose]: () => s[Symbol.asyncDispose]() }
  }

  test('U5 HTTP - by default kept responses are served and marked, and the handler runs for all other requests', async () => {
    await using c = await cached({})
    const { cacheStatus, body } = await c.get()
    assert.equal(body, 'old')
    assert.match(String(cacheStatus), /^soloflight; hit; ttl=\d+; detail=unverified$/)
    assert.equal((await c.get({ range: 'bytes=0-1' })).body, 'ol')
    assert.equal(c.anew.asked.length, 0)
    assert.equal((await c.get({ 'cache-control': 'no-cache' })).body, 'new')
    assert.equal((await c.get({ 'cache-control': 'max-age=0' })).body, 'new')
    await c.get({}, 'POST')
    assert.equal((await c.get()).body, 'new')
  })

  test('U5 HTTP - a stale response is served within its stale-if-error', async () => {
    await using c = await cached({}, 'max-age=0, stale-if-error=600')
    const { cacheStatus, body } = await c.get()
    assert.equal(body, 'old')
    assert.match(String(cacheStatus), /^soloflight; hit; ttl=-?\d+; detail=unverified$/)
    assert.equal(c.anew.asked.length, 0)
  })

  test("U5 HTTP - 'cached' answers 503 without a kept response; 'local' and 'fail' ignore kept responses", async () => {
    await using c = await cached({ onUnavailable: 'cached' })
    assert.equal((await c.get()).body, 'old')
    assert.equal((await c.get({}, 'GET', '/other')).status, 503)
    // As a stale response that replaces an origin error: RFC 5861.
    const { body, cacheStatus } = await c.get({ 'cache-control': 'no-cache' })
    assert.equal(body, 'old')
    assert.match(String(cacheStatus), /detail=unverified/)
    await using local = await cached({ onUnavailable: 'local' })
    assert.equal((await local.get()).body, 'new')
    await using fail = await cached({ onUnavailable: 'fail' })
    assert.equal((await fail.get()).status, 503)
  })
})
