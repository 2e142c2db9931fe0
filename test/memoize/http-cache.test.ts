// HttpCache on plain messages: hits, misses, keys, options and variants, in one process and in several.

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { Locker } from '../../src/index.ts'
import {
  HttpCache,
  type HttpCacheOptions,
  type HttpResponse,
  type OriginResponse,
} from '../../src/memoize/index.ts'
import { CacheWorld, fresh, get, HOUR, read, TestOrigin } from '../support/http-cache-scene.ts'
import { until } from '../support/wait.ts'

describe('http cache', () => {
  test('a hit is returned at once, not as a promise, and is the same object each time', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(fresh('hello', { 'x-a': ['1', '2'] }))
    const first = await read(world.cache.handle(get(), origin.ask))
    const hit = world.cache.handle(get(), origin.ask)
    assert.ok(!(hit instanceof Promise), 'not a promise')
    assert.equal(world.cache.handle(get(), origin.ask), hit)
    const second = await read(hit)
    assert.equal(origin.count, 1)
    assert.deepEqual([first.body, second.body], ['hello', 'hello'])
    assert.deepEqual(second.headers['x-a'], ['1', '2'])
    assert.equal(second.headers['age'], '0')
    assert.equal(second.headers['content-length'], '5')
    assert.match(String(second.headers['cache-status']), /^soloflight; hit; ttl=(59|60)$/)
    assert.equal(first.headers['cache-status'], 'soloflight; fwd=uri-miss; stored; ttl=60')
    assert.equal(first.headers['age'], undefined)
    assert.equal(first.headers['date'], second.headers['date'])
  })

  test('a hundred requests in four processes call the origin once', async () => {
    await using world = new CacheWorld({}, 4)
    const bytes = Buffer.from([0, 255, 13, 10, 128])
    const gate = pDefer<OriginResponse>()
    const origin = new TestOrigin(() => gate.promise)
    const responses = Array.from({ length: 100 }, (_, i) => world.caches[i % 4]?.handle(get(), origin.ask))
    await until(() => origin.count > 0, { what: 'the origin to be called' })
    gate.resolve({
      status: 201,
      statusText: 'Made',
      headers: { a: 'b' },
      body: Readable.from([bytes, bytes]),
    })
    for (const response of await Promise.all(responses)) {
      assert.deepEqual([response?.status, response?.statusText], [201, 'Made'])
      assert.deepEqual(response?.body, Buffer.concat([bytes, bytes]))
    }
    assert.equal(origin.count, 1)
  })

  test('a response without stated freshness is shared only by the requests that wait for it', async () => {
    await using world = new CacheWorld({}, 2)
    const origin = new TestOrigin((_, count) => ({ status: 200, headers: {}, body: String(count) }))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, '1')
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, '2')
  })

  test('ttl and errorTtl apply to responses that state no freshness', async () => {
    await using world = new CacheWorld({ ttl: HOUR, errorTtl: HOUR })
    const origin = new TestOrigin((request) => ({
      status: Number(request.url.slice(1)),
      headers: {},
      body: 'x',
    }))
    for (const status of [200, 404, 500]) {
      for (let i = 0; i < 2; i++) await read(world.cache.handle(get({}, { url: `/${status}` }), origin.ask))
    }
    assert.deepEqual(
      origin.asked.map(({ url }) => url),
      ['/200', '/404', '/500'],
    )
    const own = new TestOrigin({ status: 200, headers: { 'cache-control': 'max-age=0' }, body: 'x' })
    for (let i = 0; i < 2; i++) await read(world.cache.handle(get({}, { url: '/own' }), own.ask))
    assert.equal(own.count, 2)
  })

  test('HEAD and GET share one stored response', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(fresh('hello'))
    const head = await read(world.cache.handle(get({}, { method: 'HEAD' }), origin.ask))
    assert.deepEqual([head.body, head.headers['content-length']], ['', '5'])
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, 'hello')
    assert.equal((await read(world.cache.handle(get({}, { method: 'HEAD' }), origin.ask))).body, '')
    assert.deepEqual(
      origin.asked.map(({ method }) => method),
      ['GET'],
    )
  })

  test('conditions and ranges are evaluated on the stored response', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(fresh('0123456789', { etag: '"a"', 'content-type': 'text/plain' }))
    const first = await read(world.cache.handle(get({ 'if-none-match': '"a"' }), origin.ask))
    assert.deepEqual([first.status, first.body], [304, ''])
    assert.equal(origin.asked[0]?.headers['if-none-match'], undefined)
    const again = await read(world.cache.handle(get({ 'if-none-match': '"a"' }), origin.ask))
    assert.deepEqual(
      [again.status, again.headers['etag'], again.headers['content-length']],
      [304, '"a"', undefined],
    )
    const part = await read(world.cache.handle(get({ range: 'bytes=2-4' }), origin.ask))
    assert.deepEqual([part.status, part.body], [206, '234'])
    assert.deepEqual([part.headers['content-range'], part.headers['content-length']], ['bytes 2-4/10', '3'])
    const none = await read(world.cache.handle(get({ range: 'bytes=10-' }), origin.ask))
    assert.deepEqual([none.status, none.headers['content-range'], none.body], [416, 'bytes */10', ''])
    const several = await read(world.cache.handle(get({ range: 'bytes=0-1,3-4' }), origin.ask))
    assert.deepEqual([several.status, several.body], [200, '0123456789'])
    assert.equal(origin.count, 1)
  })

  test('conditions are not applied to a private error', async () => {
    await using world = new CacheWorld()
    const headers = { etag: '"a"', 'cache-control': 'private' }
    const ask = async (status: number) =>
      (
        await read(
          world.cache.handle(get({ 'if-none-match': '"a"' }), () => ({ status, headers, body: 'x' })),
        )
      ).status
    assert.deepEqual([await ask(404), await ask(200)], [404, 304])
  })

  test('the origin does not receive hop-by-hop fields', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(() => fresh('x'))
    const headers = {
      connection: 'keep-alive, x-hop',
      'x-hop': '1',
      te: 'x',
      'proxy-authorization': 'x',
      'x-all': '2',
    }
    for (const method of ['GET', 'POST', 'OPTIONS'])
      await read(world.cache.handle(get(headers, { method }), origin.ask))
    assert.equal(origin.count, 3)
    for (const { headers } of origin.asked)
      assert.deepEqual({ ...headers }, { host: 'example.org', 'x-all': '2' })
  })

  test('a range request on a miss is forwarded unchanged, and its response is not stored', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(fresh('01', { 'content-range': 'bytes 0-1/10' }, 206))
    for (let i = 0; i < 2; i++) await read(world.cache.handle(get({ range: 'bytes=0-1' }), origin.ask))
    assert.deepEqual(
      origin.asked.map(({ headers }) => headers['range']),
      ['bytes=0-1', 'bytes=0-1'],
    )
  })

  test('a custom key, and methods other than GET and HEAD', async () => {
    await using world = new CacheWorld({
      key: ({ url }) => (url === '/none' ? undefined : url.slice(0, 2)),
      methods: ['GET', 'POST'],
    })
    const origin = new TestOrigin(({ method }, count) => fresh(`${method} ${count}`))
    const body = async (method: string, url: string) =>
      (await read(world.cache.handle(get({ 'content-length': '0' }, { method, url }), origin.ask))).body
    assert.deepEqual(
      [await body('GET', '/a1'), await body('GET', '/a2'), await body('GET', '/b')],
      ['GET 1', 'GET 1', 'GET 2'],
    )
    assert.deepEqual([await body('POST', '/a1'), await body('POST', '/a2')], ['POST 3', 'POST 3'])
    assert.deepEqual([await body('GET', '/none'), await body('GET', '/none')], ['GET 4', 'GET 5'])
    assert.throws(() => new HttpCache(new Locker(), { methods: ['POST'] }), /key/)
  })

  test('invalid options are refused', () => {
    const wrong = [
      { ttl: -1 },
      { maxbody: 1 },
      { cookies: 'yes' },
      { vary: ['a b'] },
      { cacheStatus: 'a b' },
      { key: 1 },
      { methods: 'GET' },
    ]
    for (const options of wrong)
      assert.throws(
        () => new HttpCache(new Locker(), options as HttpCacheOptions),
        TypeError,
        JSON.stringify(options),
      )
    assert.throws(() => new HttpCache({} as Locker), TypeError)
  })

  test('the name in Cache-Status can be set, or the field omitted', async () => {
    for (const [name, told] of [
      ['edge', 'edge; fwd=uri-miss; stored; ttl=60'],
      [false, undefined],
    ] as const) {
      await using world = new CacheWorld({ cacheStatus: name })
      const { headers } = await read(world.cache.handle(get(), () => fresh('x')))
      assert.equal(headers['cache-status'], told)
    }
  })
})

describe('http cache, Vary', () => {
  const origin = () =>
    new TestOrigin(({ headers }) => fresh(`hello ${headers['accept-language']}`, { vary: 'Accept-Language' }))

  test('each variant is fetched once in all processes', async () => {
    await using world = new CacheWorld({}, 3)
    const gate = pDefer<void>()
    const asked = new TestOrigin(async (request) => {
      await gate.promise
      return origin().ask(request)
    })
    const responses = Array.from({ length: 30 }, (_, i) =>
      world.caches[i % 3]?.handle(get({ 'accept-language': `l${i % 5}` }), asked.ask),
    )
    await until(() => asked.count > 0, { what: 'the origin to be called' })
    gate.resolve()
    for (const [i, response] of responses.entries()) {
      assert.equal((await read(response as Promise<HttpResponse>)).body, `hello l${i % 5}`)
    }
    assert.equal(asked.count, 5)
  })

  test('the option `vary` applies though no Vary names the field', async () => {
    await using world = new CacheWorld({ vary: ['X-Tenant'] })
    const asked = new TestOrigin(({ headers }) => fresh(String(headers['x-tenant'])))
    for (const tenant of ['a', 'b', 'a', 'b']) {
      assert.equal((await read(world.cache.handle(get({ 'x-tenant': tenant }), asked.ask))).body, tenant)
    }
    assert.equal(asked.count, 2)
    const hit = world.cache.handle(get({ 'x-tenant': 'a' }), asked.ask)
    assert.ok(!(hit instanceof Promise), 'a hit of a variant is no promise either')
  })

  test('a Vary with further fields replaces the index, and the variants of the old one', async () => {
    await using world = new CacheWorld()
    const asked = new TestOrigin(({ headers }, count) =>
      fresh(`${headers['a']} ${headers['b']}`, { vary: count === 1 ? 'a' : 'a, b' }),
    )
    const body = async (a: string, b: string) =>
      (await read(world.cache.handle(get({ a, b }), asked.ask))).body
    assert.equal(await body('1', '1'), '1 1')
    assert.equal(await body('1', '2'), '1 1', 'by the first Vary')
    assert.equal(await body('2', '1'), '2 1')
    assert.equal(await body('1', '2'), '1 2')
    assert.equal(await body('2', '2'), '2 2')
    assert.equal(await body('2', '1'), '2 1')
    assert.equal(asked.count, 5, 'the response with the wider Vary is not stored itself')
    assert.equal(await body('2', '1'), '2 1')
    assert.equal(asked.count, 5)
  })

  test('an invalidation applies to all variants of a resource', async () => {
    await using world = new CacheWorld({}, 2)
    const asked = origin()
    for (const language of ['en', 'de'])
      await read(world.cache.handle(get({ 'accept-language': language }), asked.ask))
    await read(
      world.caches[1]?.handle(get({}, { method: 'PUT' }), () => ({
        status: 204,
        headers: {},
      })) as Promise<HttpResponse>,
    )
    for (const language of ['en', 'de'])
      await read(world.cache.handle(get({ 'accept-language': language }), asked.ask))
    assert.equal(asked.count, 4)
  })
})
