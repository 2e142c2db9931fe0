// The outcome of one request does not affect other requests: private results, errors, lost claims, invalidations.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { Locker, type LockerOptions } from '../../src/index.ts'
import { systemClock } from '../../src/kernel/time.ts'
import type { KeyNamespace } from '../../src/locker/internal.ts'
import { Invalidations } from '../../src/memoize/engine/invalidation.ts'
import { resolveHttpOptions } from '../../src/memoize/engine/options.ts'
import { ResponseStorage } from '../../src/memoize/engine/storage.ts'
import type { CacheEntry } from '../../src/memoize/engine/stored-response.ts'
import {
  HttpCache,
  type HttpCacheOptions,
  type HttpRequest,
  type OriginRequest,
  type OriginResponse,
} from '../../src/memoize/index.ts'
import { cacheStatusOf, get, page, textOf } from '../support/http-cache-scene.ts'
import { HttpWorld, onBoth } from '../support/http-scene.ts'
import type { TcpProxy } from '../support/proxy.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** An origin that counts its calls, and how many run at once. */
class Origin {
  count = 0
  now = 0
  most = 0
  readonly #answer: (request: OriginRequest, count: number) => OriginResponse

  readonly #delay: number

  /** `delay`: how long each call takes, ms. */
  constructor(answer: (request: OriginRequest, count: number) => OriginResponse, delay = 20) {
    this.#answer = answer
    this.#delay = delay
  }

  readonly ask = async (request: OriginRequest): Promise<OriginResponse> => {
    const count = ++this.count
    this.most = Math.max(this.most, ++this.now)
    await sleep(this.#delay)
    this.now--
    return this.#answer(request, count)
  }
}

/** Caches of several processes. */
const cachesIn = (
  world: HttpWorld,
  count: number,
  options?: HttpCacheOptions,
  own?: LockerOptions,
): HttpCache[] => Array.from({ length: count }, () => new HttpCache(world.locker(own), options))

/** Responses that a field of one request causes. */
const BRINGS: Record<string, () => OriginResponse> = {
  'a 400': () => page('bad', {}, 400),
  'a 431': () => page('large', {}, 431),
  'a 403': () => page('forbidden', {}, 403),
  'a 405': () => page('method', {}, 405),
  'a 429': () => page('slower', {}, 429),
  'a cookie': () => page('yours', { 'set-cookie': 'a=b' }),
  'a page of an error': () => page('<h1>Error</h1>', {}, 500),
  'a throw': () => {
    throw new Error('cannot read that')
  },
}

describe('http isolation, waiting requests', () => {
  for (const [what, bring] of Object.entries(BRINGS)) {
    onBoth(`do not get ${what} that one request causes`, async (world) => {
      const caches = cachesIn(world, 3)
      // Long enough for all to wait, in every process, before a response comes.
      const origin = new Origin(({ headers }) => (headers['x-odd'] ? bring() : page('good')), 100)
      const odd = (caches[0] as HttpCache).handle(get({ 'x-odd': '1' }), origin.ask)
      await until(() => origin.count === 1, { what: 'the odd request to be the first' })
      const others = Array.from({ length: 75 }, (_, n) =>
        textOf((caches[n % 3] as HttpCache).handle(get(), origin.ask)),
      )
      const own = await Promise.allSettled([odd])
      assert.equal(own[0].status, what === 'a throw' ? 'rejected' : 'fulfilled')
      assert.deepEqual(new Set(await Promise.all(others)), new Set(['200 good']))
      assert.equal(origin.count, 2)
    })
  }

  onBoth('are fetched privately, at most eight at once, when all responses are private', async (world) => {
    const [cache] = cachesIn(world, 1) as [HttpCache]
    const origin = new Origin(() => page('forbidden', {}, 403))
    const answers = Array.from({ length: 60 }, () => textOf(cache.handle(get(), origin.ask)))
    assert.deepEqual(new Set(await Promise.all(answers)), new Set(['403 forbidden']))
    assert.equal(origin.count, 60)
    assert.ok(origin.most > 1 && origin.most <= 8, `${origin.most} at once`)
  })

  onBoth('a private fetch stores a response that may be shared', async (world) => {
    const [cache] = cachesIn(world, 1) as [HttpCache]
    const origin = new Origin(({ headers }) =>
      headers['x-odd'] ? page('bad', {}, 400) : page('good', { 'cache-control': 'max-age=60' }),
    )
    const odd = Array.from({ length: 3 }, () => textOf(cache.handle(get({ 'x-odd': '1' }), origin.ask)))
    assert.equal(await textOf(cache.handle(get(), origin.ask)), '200 good')
    await Promise.all(odd)
    const { count } = origin
    assert.equal(await textOf(cache.handle(get(), origin.ask)), '200 good')
    assert.equal(origin.count, count)
  })

  onBoth('go on sharing while one client repeatedly gets cookies', async (world) => {
    const [cache] = cachesIn(world, 1) as [HttpCache]
    const origin = new Origin(({ headers }) => page('page', headers['x-odd'] ? { 'set-cookie': 'a=b' } : {}))
    for (let turn = 0; turn < 4; turn++) {
      await textOf(cache.handle(get({ 'x-odd': '1' }), origin.ask))
      await Promise.all(Array.from({ length: 20 }, () => textOf(cache.handle(get(), origin.ask))))
    }
    assert.equal(origin.count, 8)
  })

  onBoth('share again as soon as the resource is shared again', async (world) => {
    const [cache] = cachesIn(world, 1) as [HttpCache]
    const origin = new Origin((_, count) => page('page', count === 1 ? { 'cache-control': 'private' } : {}))
    await textOf(cache.handle(get(), origin.ask))
    await textOf(cache.handle(get(), origin.ask))
    // The end of the hit-for-pass is written after the response.
    await sleep(50)
    await Promise.all(Array.from({ length: 20 }, () => textOf(cache.handle(get(), origin.ask))))
    assert.equal(origin.count, 3)
  })
})

describe('http isolation, errors', () => {
  for (const status of [400, 401, 403, 405, 409, 413, 416, 429, 431])
    test(`a ${status} without stated freshness is not stored by errorTtl`, async () => {
      await using world = new HttpWorld()
      const [cache] = cachesIn(world, 1, { errorTtl: 60_000 }) as [HttpCache]
      const origin = new Origin((_, count) => (count === 1 ? page('no', {}, status) : page('good')))
      assert.equal(await textOf(cache.handle(get(), origin.ask)), `${status} no`)
      assert.equal(await textOf(cache.handle(get(), origin.ask)), '200 good')
    })

  for (const status of [404, 410, 451, 502, 503, 504])
    test(`a ${status} is shared by the requests that wait`, async () => {
      await using world = new HttpWorld()
      const [cache] = cachesIn(world, 1) as [HttpCache]
      const origin = new Origin(() => page('no', {}, status))
      const answers = Array.from({ length: 10 }, () => textOf(cache.handle(get(), origin.ask)))
      assert.deepEqual(new Set(await Promise.all(answers)), new Set([`${status} no`]))
      assert.equal(origin.count, 1)
    })

  for (const status of [404, 410, 414, 451, 500, 503])
    test(`a ${status} is stored by errorTtl`, async () => {
      await using world = new HttpWorld()
      const [cache] = cachesIn(world, 1, { errorTtl: 60_000 }) as [HttpCache]
      const origin = new Origin(() => page('no', {}, status))
      for (let n = 0; n < 3; n++) assert.equal(await textOf(cache.handle(get(), origin.ask)), `${status} no`)
      assert.equal(origin.count, 1)
    })

  test('a 403 that states its freshness is stored', async () => {
    await using world = new HttpWorld()
    const [cache] = cachesIn(world, 1) as [HttpCache]
    const origin = new Origin(() => page('no', { 'cache-control': 'max-age=60' }, 403))
    for (let n = 0; n < 3; n++) assert.equal(await textOf(cache.handle(get(), origin.ask)), '403 no')
    assert.equal(origin.count, 1)
  })

  test('an exception of the handler is neither stored nor visible in other processes', async () => {
    await using world = new HttpWorld()
    const [a, b] = cachesIn(world, 2, { errorTtl: 60_000 }) as [HttpCache, HttpCache]
    const origin = new Origin(() => {
      throw new Error('secret of the handler')
    })
    await assert.rejects(textOf(a.handle(get(), origin.ask)), /secret of the handler/)
    assert.equal(await textOf(b.handle(get(), () => page('good'))), '200 good')
  })
})

/** Stale at once; may be served for an hour while it is refreshed, or when the origin fails. */
const STALE = { 'cache-control': 'max-age=0, stale-while-revalidate=3600, stale-if-error=3600' }

describe('http isolation, a stored response', () => {
  for (const [what, bring] of Object.entries(BRINGS))
    onBoth(`stays when a refresh yields ${what}`, async (world) => {
      const [cache] = cachesIn(world, 1) as [HttpCache]
      const origin = new Origin(({ headers }) => (headers['x-odd'] ? bring() : page('good', STALE)))
      await textOf(cache.handle(get(), origin.ask))
      await textOf(cache.handle(get({ 'x-odd': '1' }), origin.ask))
      await until(() => origin.count === 2 && origin.now === 0, { what: 'the refresh to end' })
      await sleep(30)
      assert.match(await cacheStatusOf(cache.handle(get(), origin.ask)), /hit/)
    })

  const WITHDRAWALS: Record<string, OriginResponse> = {
    'a 404': page('gone', {}, 404),
    'a 410': page('gone', {}, 410),
    private: page('mine', { 'cache-control': 'private' }),
    'no-store': page('mine', { 'cache-control': 'no-store' }),
    'what is not to be kept': page('once', { 'cache-control': 'max-age=0' }),
  }
  for (const [what, withdrawal] of Object.entries(WITHDRAWALS))
    for (const way of ['when requested', 'when refreshed'])
      onBoth(`is removed by ${what}, ${way}`, async (world) => {
        const caches = cachesIn(world, 2, { revalidate: true }) as [HttpCache, HttpCache]
        let answer: () => OriginResponse = () =>
          page(
            'old',
            way === 'when refreshed' ? STALE : { 'cache-control': 'max-age=0, stale-if-error=3600' },
          )
        const origin = new Origin(() => answer())
        await textOf(caches[0].handle(get(), origin.ask))
        answer = () => withdrawal
        await textOf(caches[0].handle(get(), origin.ask))
        await until(() => origin.count === 2 && origin.now === 0, { what: 'the withdrawal' })
        await sleep(50)
        answer = () => page('failed', {}, 503)
        for (const cache of caches) {
          const demanded = get({ 'cache-control': 'max-stale' })
          assert.doesNotMatch(await textOf(cache.handle(demanded, origin.ask)), /old/)
          assert.doesNotMatch(await textOf(cache.handle(get(), origin.ask)), /old/)
        }
      })

  test('is removed when a private fetch yields a 404 with no-store', async () => {
    await using world = new HttpWorld()
    const [cache] = cachesIn(world, 1) as [HttpCache]
    let answer = (_: OriginRequest): OriginResponse =>
      page('old', { 'cache-control': 'max-age=0, stale-if-error=3600' })
    const origin = new Origin((request) => answer(request))
    await textOf(cache.handle(get(), origin.ask))
    answer = ({ headers }) =>
      headers['x-odd'] ? page('bad', {}, 400) : page('gone', { 'cache-control': 'no-store' }, 404)
    const odd = Array.from({ length: 3 }, () => textOf(cache.handle(get({ 'x-odd': '1' }), origin.ask)))
    assert.equal(await textOf(cache.handle(get(), origin.ask)), '404 gone')
    await Promise.all(odd)
    answer = () => page('failed', {}, 503)
    for (const headers of [{ 'cache-control': 'max-stale' }, {}])
      assert.equal(await textOf(cache.handle(get(headers), origin.ask)), '503 failed')
  })

  test('is removed by a 410 with Set-Cookie', async () => {
    await using world = new HttpWorld()
    const [cache] = cachesIn(world, 1) as [HttpCache]
    let answer = (): OriginResponse => page('old', { 'cache-control': 'max-age=0, stale-if-error=3600' })
    const origin = new Origin(() => answer())
    await textOf(cache.handle(get(), origin.ask))
    answer = () => page('gone', { 'set-cookie': 'a=b' }, 410)
    assert.equal(await textOf(cache.handle(get(), origin.ask)), '410 gone')
    answer = () => page('failed', {}, 503)
    assert.equal(await textOf(cache.handle(get(), origin.ask)), '503 failed')
  })

  test('stays when a client leaves half-way through a private fetch', async () => {
    await using world = new HttpWorld()
    const [cache] = cachesIn(world, 1) as [HttpCache]
    const noCache = { 'cache-control': 'no-cache' }
    const half = async function* () {
      yield 'half'
      await pDefer<void>().promise
    }
    const fresh = { 'cache-control': 'max-age=60' }
    let answer = (_: OriginRequest): OriginResponse => page('good', fresh)
    const origin = new Origin((request) => answer(request))
    await textOf(cache.handle(get(), origin.ask))
    answer = ({ headers }) =>
      headers['x-odd'] ? page('bad', {}, 400) : { status: 200, headers: fresh, body: half() }
    const odd = Array.from({ length: 3 }, () =>
      textOf(cache.handle(get({ ...noCache, 'x-odd': '1' }), origin.ask)),
    )
    const client = new AbortController()
    const response = await cache.handle({ ...get(noCache), signal: client.signal }, origin.ask)
    assert.equal(response.status, 200)
    client.abort()
    await Promise.all(odd)
    await sleep(30)
    assert.match(await cacheStatusOf(cache.handle(get(), origin.ask)), /hit/)
    assert.equal(origin.count, 5)
  })

  test('stays when the origin fails', async () => {
    await using world = new HttpWorld()
    const [cache] = cachesIn(world, 1) as [HttpCache]
    for (const failure of [page('no', {}, 503), page('no', { 'cache-control': 'no-store' }, 500)]) {
      const url = `/${failure.status}`
      const origin = new Origin((_, count) =>
        count === 1 ? page('old', { 'cache-control': 'max-age=0, stale-if-error=3600' }) : failure,
      )
      for (let n = 0; n < 3; n++)
        assert.equal(await textOf(cache.handle(get({}, { url }), origin.ask)), '200 old')
    }
  })
})

describe('http isolation, a lost lease', () => {
  test('makes the response private, and the others fetch again', async () => {
    await using world = await HttpWorld.onRedis()
    const caches = cachesIn(world, 2, {}, { lease: 500 })
    const origin = new Origin((_, count) => page(`answer ${count}`))
    const slow = async (request: OriginRequest): Promise<OriginResponse> => {
      const answer = await origin.ask(request)
      if (origin.count === 1) await sleep(1_500)
      return answer
    }
    const answers = Array.from({ length: 20 }, (_, n) =>
      textOf((caches[n % 2] as HttpCache).handle(get(), slow)),
    )
    await until(() => origin.count === 1, { what: 'the origin to be called' })
    await world.t.server.call('FLUSHALL')
    const texts = (await Promise.all(answers)).sort()
    assert.deepEqual(texts, ['200 answer 1', ...Array(19).fill('200 answer 2')])
  })
})

describe('http isolation, options of the locker', () => {
  test('do not serve stale responses that HTTP forbids', async () => {
    await using world = new HttpWorld()
    const own = { staleWhileRevalidate: 60_000, staleIfError: 60_000, softTimeout: 1 }
    const [cache] = cachesIn(world, 1, {}, own) as [HttpCache]
    const origin = new Origin((_, count) => {
      if (count === 3) throw new Error('down')
      return page(`answer ${count}`, { 'cache-control': 'max-age=1, must-revalidate' })
    })
    assert.equal(await textOf(cache.handle(get(), origin.ask)), '200 answer 1')
    await sleep(1_100)
    assert.equal(await textOf(cache.handle(get(), origin.ask)), '200 answer 2')
    await sleep(1_100)
    await assert.rejects(textOf(cache.handle(get(), origin.ask)), /down/)
  })
})

describe('http isolation, Cache-Status', () => {
  test('says why a response is private', async () => {
    await using world = new HttpWorld()
    const [cache] = cachesIn(world, 1, { maxBody: 3 }) as [HttpCache]
    const said = async (response: OriginResponse, url: string): Promise<string> =>
      cacheStatusOf(cache.handle(get({}, { url }), () => response))
    assert.match(await said(page('a', { 'cache-control': 'private' }), '/1'), /fwd=uri-miss; detail=private$/)
    assert.match(await said(page('a', { 'set-cookie': 'a=b' }), '/2'), /detail=set-cookie$/)
    assert.match(await said(page('long', {}), '/3'), /detail=body-size$/)
    assert.match(
      await said(page('a', { 'cache-control': 'max-age=9' }), '/4'),
      /fwd=uri-miss; stored; ttl=9$/,
    )
  })

  test('does not say stored when the store has not accepted the response', async () => {
    await using world = new HttpWorld()
    const locker = world.locker()
    const cache = new HttpCache(locker)
    const said = await cacheStatusOf(
      cache.handle(get(), async () => {
        await cache.handle({ ...get(), method: 'POST' }, () => page('changed'))
        return page('a', { 'cache-control': 'max-age=9' })
      }),
    )
    assert.match(said, /fwd=uri-miss; detail=not-stored$/)
  })
})

/** How Redis can be away. */
const OUTAGES = {
  'refuses connections': async ({ proxy }: Setup & { proxy: TcpProxy }, away: boolean): Promise<void> => {
    await proxy.refuse(away)
    if (away) proxy.cut()
  },
  'is frozen': async ({ server }: Setup, away: boolean): Promise<void> => {
    if (away) await server.freeze()
    else server.thaw()
  },
}

/** A storage that can only invalidate. */
function storageWith(invalidateWithPending: (...keys: string[]) => Promise<void>): ResponseStorage {
  const namespace = { invalidateWithPending, clock: systemClock } as unknown as KeyNamespace<CacheEntry>
  return new ResponseStorage(namespace, resolveHttpOptions({}))
}

describe('http invalidation while Redis is away', () => {
  for (const [what, set] of Object.entries(OUTAGES))
    test(`is honoured in this process while Redis ${what}, and sent when it is back`, async () => {
      await using t = await setup({ proxy: true })
      await using world = new HttpWorld(t)
      const [a, b] = cachesIn(world, 2, {}, { unavailableAfter: 300 }) as [HttpCache, HttpCache]
      let text = 'old'
      const origin = () => page(text, { 'cache-control': 'max-age=3600' })
      for (const cache of [a, b]) assert.equal(await textOf(cache.handle(get(), origin)), '200 old')
      await set(t, true)
      text = 'new'
      assert.equal(await textOf(a.handle({ ...get(), method: 'POST' }, () => page('done'))), '200 done')
      assert.equal(await textOf(a.handle(get(), origin)), '200 new')
      await set(t, false)
      // A process that starts now knows only what Redis has.
      const [late] = cachesIn(world, 1) as [HttpCache]
      await until(async () => (await textOf(late.handle(get(), origin))) === '200 new', {
        what: 'the invalidation to be sent',
      })
      text = 'not asked'
      for (const cache of [a, b, late])
        await until(async () => /hit/.test(await cacheStatusOf(cache.handle(get(), origin))), {
          what: 'its connection',
        })
      for (const cache of [a, b, late]) assert.equal(await textOf(cache.handle(get(), origin)), '200 new')
    })

  test('uses the key that the request would have as a GET', async () => {
    await using world = new HttpWorld()
    const key = (request: HttpRequest & { incoming?: { path: string } }): string =>
      String(request.incoming?.path)
    const cache = new HttpCache(world.locker(), { key })
    const incoming = { path: '/page' }
    let text = 'old'
    const origin = () => page(text, { 'cache-control': 'max-age=3600' })
    await cache.handle({ ...get(), incoming } as HttpRequest, origin)
    text = 'new'
    await cache.handle({ ...get(), incoming, method: 'POST' } as HttpRequest, () => page('done'))
    assert.equal(await textOf(cache.handle({ ...get(), incoming } as HttpRequest, origin)), '200 new')
  })

  test('that can never be sent is reported by telemetry', async () => {
    const lost: unknown[] = []
    const heard = (event: unknown): unknown => lost.push(event)
    subscribe('soloflight:invalidationLost', heard)
    try {
      await using t = await setup()
      const locker = new Locker({ redis: t.redis, unavailableAfter: 300 })
      const cache = new HttpCache(locker, { key: ({ url }) => url })
      await t.server.freeze()
      await cache.handle({ ...get(), method: 'POST' }, () => page('done'))
      await locker.close({ grace: 0 })
      await until(() => lost.length === 1, { what: 'the event' })
      assert.match(String((lost[0] as { key: string }).key), /page/)
      await t.server.thaw()
    } finally {
      unsubscribe('soloflight:invalidationLost', heard)
    }
  })

  test('resolves while further ones keep coming', async () => {
    const told: string[] = []
    const outdate = async (...keys: string[]): Promise<void> => {
      await sleep(20)
      told.push(...keys)
    }
    const unsent = new Invalidations(storageWith(outdate))
    let last = Promise.resolve()
    let answered = 0
    for (let n = 0; n < 40; n++) {
      last = unsent.invalidate([`${n}`]).then(() => void answered++)
      await sleep(5)
    }
    assert.ok(answered > 20, `${answered} of 40`)
    await last
    assert.equal(new Set(told).size, 40)
  })

  test('of a key that is being sent is sent once more', async () => {
    const told: string[][] = []
    const gates = [pDefer<void>(), pDefer<void>()]
    const outdate = (...keys: string[]): Promise<void> => {
      told.push(keys)
      return (gates[told.length - 1] as (typeof gates)[0]).promise
    }
    const storage = storageWith(outdate)
    const unsent = new Invalidations(storage)
    const first = unsent.invalidate(['a'])
    await until(() => told.length === 1, { what: 'the first invalidation to be sent' })
    const changes = [first, unsent.invalidate(['a'])]
    gates[0]?.resolve()
    await until(() => told.length === 2, { what: 'the second invalidation to be sent' })
    assert.ok(storage.isInvalidated('a'), 'nothing of it is served meanwhile')
    gates[1]?.resolve()
    await Promise.all(changes)
    assert.ok(!storage.isInvalidated('a'))
    assert.deepEqual(told, [['a'], ['a']])
  })
})
