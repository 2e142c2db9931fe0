// Findings of a review against the RFCs: hostile or sloppy clients, origins and handlers do not affect later requests.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { entryCodec, StoredResponse } from '../../src/memoize/engine/stored-response.ts'
import { memoizeHandler } from '../../src/memoize/fetch.ts'
import {
  type HeaderFields,
  HttpCache,
  type HttpCacheOptions,
  type HttpRequest,
  type OriginRequest,
  type OriginResponse,
} from '../../src/memoize/index.ts'
import { bodyOf, fresh, get } from '../support/http-cache-scene.ts'
import { HttpWorld } from '../support/http-scene.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

class World extends HttpWorld {
  cache(options?: HttpCacheOptions): HttpCache {
    return new HttpCache(this.locker(), options)
  }
}

/** Responds with the host, a field and the URL that it receives. */
const mirror = ({ headers, url }: OriginRequest): OriginResponse =>
  fresh(`${headers['host']} ${headers['x-tenant']} ${url}`)

describe('http review, poisoning', () => {
  test('a request that names fields in Connection bypasses the cache', async () => {
    await using world = new World()
    const cache = world.cache({ vary: ['x-tenant'] })
    for (const connection of ['close, x-tenant', 'X-Tenant', 'host', 'cookie'])
      await bodyOf(cache.handle(get({ 'x-tenant': 'a', connection }), mirror))
    assert.equal(await bodyOf(cache.handle(get({ 'x-tenant': 'a' }), mirror)), 'example.org a /page')
  })

  test('Connection cannot remove fields that are about the message', async () => {
    await using world = new World()
    const seen: HeaderFields[] = []
    const given = { authorization: 'a', 'cache-control': 'no-cache', 'content-length': '0', cookie: 'b' }
    const connection = ['host', ...Object.keys(given)].join(', ')
    await world.cache().handle(get({ ...given, connection, 'x-a': 'b' }), ({ headers }) => {
      seen.push(headers)
      return fresh('x')
    })
    assert.deepEqual({ ...seen[0] }, { host: 'example.org', ...given, 'x-a': 'b' })
    const cache = world.cache({ ttl: 60_000 })
    let count = 0
    const origin = () => ({
      ...fresh(`${++count}`, { connection: 'cache-control', 'cache-control': 'no-store' }),
    })
    for (const expected of ['1', '2'])
      assert.equal(await bodyOf(cache.handle(get({}, { url: '/own' }), origin)), expected)
  })

  test('the absolute form is forwarded; an unsafe one invalidates the origin form', async () => {
    await using world = new World()
    const cache = world.cache()
    const url = 'http://example.org/page'
    assert.match(await bodyOf(cache.handle(get({}, { url }), mirror)), /http:/)
    assert.equal(await bodyOf(cache.handle(get(), mirror)), 'example.org undefined /page')
    await cache.handle(get({}, { method: 'POST', url }), () => ({ status: 204, headers: {} }))
    assert.equal(await bodyOf(cache.handle(get(), () => fresh('new'))), 'new')
  })

  test('http and https do not share responses', async () => {
    await using world = new World()
    const handler = memoizeHandler(world.locker(), {}, ({ url }) =>
      url.startsWith('http:')
        ? new Response(null, {
            status: 301,
            headers: { location: 'https://h/x', 'cache-control': 'max-age=60' },
          })
        : new Response('secure'),
    )
    assert.equal((await handler(new Request('http://h/x'))).status, 301)
    assert.equal((await handler(new Request('https://h/x'))).status, 200)
  })

  test('the origin receives host and language as the key normalizes them', async () => {
    await using world = new World()
    const cache = world.cache()
    const origin = ({ headers }: OriginRequest) =>
      fresh(`${headers['host']} ${headers['accept-language']}`, { vary: 'accept-language' })
    const ask = (host: string, language: string) =>
      bodyOf(cache.handle(get({ host, 'accept-language': language }), origin))
    assert.equal(await ask('Example.ORG', 'EN-us , ZH-hant ; q = 0.5'), 'example.org en-US,zh-Hant;q=0.5')
    assert.equal(await ask('example.org', 'd e'), 'example.org d e')
    assert.equal(await ask('example.org', 'de'), 'example.org de')
  })

  test('a response with a malformed Vary is private', async () => {
    await using world = new World()
    const cache = world.cache()
    for (const vary of ['accept; cookie', 'a b', '"*"']) {
      const ask = (x: string) => bodyOf(cache.handle(get({}, { url: `/${vary}` }), () => fresh(x, { vary })))
      assert.deepEqual([await ask('1'), await ask('2')], ['1', '2'], vary)
    }
  })

  test('invalid results of `key` and `tags` are refused', async () => {
    await using world = new World()
    for (const key of [() => null, async () => '/x', () => 5])
      await assert.rejects(
        async () => world.cache({ key: key as never }).handle(get(), () => fresh('x')),
        TypeError,
      )
    for (const tags of [() => 'ab', async () => ['a'], () => [5]])
      await assert.rejects(
        async () => world.cache({ tags: tags as never }).handle(get(), () => fresh('x')),
        TypeError,
      )
  })
})

describe('http review, sloppy responses', () => {
  test('malformed directives that restrict are honoured', async () => {
    await using world = new World()
    const cache = world.cache({ ttl: 60_000 })
    const controls = [
      'private; max-age=60',
      'no-store; private',
      'max-age=60 private',
      'no-store ="a", max-age=60',
      'private =foo, max-age=60',
      'private=",", max-age=60',
      'private="a b", max-age=60',
      'private="never closed, max-age=60',
      'private:max-age=60',
      '"no-store", max-age=60',
      'max-age = 0',
      'max-age=60;max-age=0',
      'no-cache =a',
    ]
    for (const control of controls) {
      const url = `/${control}`
      const ask = (body: string) =>
        bodyOf(cache.handle(get({}, { url }), () => fresh(body, { 'cache-control': control })))
      assert.deepEqual([await ask('1'), await ask('2')], ['1', '2'], control)
    }
  })

  test('an invalid reason phrase is omitted; Content-Length cannot be withheld', async () => {
    await using world = new World()
    const cache = world.cache()
    for (const url of ['/kept', '/alone']) {
      const control = { 'cache-control': url === '/alone' ? 'private' : 'max-age=60' }
      const evil = { ...fresh('x', control), statusText: 'evil\x01\r\n' }
      assert.equal((await cache.handle(get({}, { url }), () => evil)).statusText, undefined)
    }
    const cut = () =>
      fresh('abc', { 'cache-control': 'max-age=60, private="content-length"', 'content-length': '10' })
    await assert.rejects(async () => cache.handle(get({}, { url: '/cut' }), cut), /10 bytes/)
  })

  test('a record with a changed reason phrase or length is not served', () => {
    const times = {
      age: 0,
      lifetime: 1,
      keep: 1,
      whileRevalidate: 0,
      ifError: 0,
      onDemand: 0,
      collapse: false,
    }
    const encode = (more: object, plan = times, lengths = ['3']): Buffer => {
      const text = 'OK'
      const fields = lengths.flatMap((length) => ['content-length', length])
      const head = { kind: 'response', status: 200, text, fields, plan, authorized: false, ...more }
      const bytes = Buffer.from(JSON.stringify(head))
      const length = Buffer.alloc(4)
      length.writeUInt32BE(bytes.length)
      return Buffer.concat([length, bytes, Buffer.from('abc')])
    }
    const stored = entryCodec.decode(encode({}))
    assert.ok(stored instanceof StoredResponse, 'a response')
    assert.equal(stored.headers['content-length'], '3')
    for (const text of ['a\r\nb', 5, null]) assert.throws(() => entryCodec.decode(encode({ text })))
    assert.throws(() => entryCodec.decode(encode({}, { ...times, age: -1 })))
    for (const lengths of [['9'], ['9', '7'], ['3', '9'], ['03'], ['']])
      assert.throws(() => entryCodec.decode(encode({}, times, lengths)), `${lengths}`)
  })
})

describe('http review, invalidation', () => {
  const begun = async (
    world: World,
    options: HttpCacheOptions,
    request: HttpRequest,
    headers: HeaderFields,
  ) => {
    const cache = world.cache(options)
    const gate = pDefer<void>()
    const asked = pDefer<void>()
    const answer = bodyOf(
      cache.handle(request, async () => {
        asked.resolve()
        await gate.promise
        return fresh('old', headers)
      }),
    )
    await asked.promise
    const end = (): Promise<string> => {
      gate.resolve()
      return answer
    }
    return { cache, end }
  }
  const change = (cache: HttpCache) =>
    cache.handle(get({}, { method: 'POST' }), () => ({ status: 204, headers: {} }))

  test('a response to Authorization that began before an invalidation is not stored', async () => {
    await using world = new World(await setup())
    const open = { 'cache-control': 'public, max-age=60' }
    const { cache, end } = await begun(world, {}, get({ authorization: 'a' }), open)
    await change(cache)
    assert.equal(await end(), 'old')
    assert.equal(await bodyOf(cache.handle(get(), () => fresh('new'))), 'new')
  })

  test('the same by a tag; without an invalidation it is stored', async () => {
    await using world = new World(await setup())
    const open = { 'cache-control': 'public, max-age=60' }
    const options = { tags: () => ['t'] }
    const { cache, end } = await begun(world, options, get({ authorization: 'a' }), open)
    await world.locker().invalidateTags('t')
    assert.equal(await end(), 'old')
    const again = cache.handle(get({ authorization: 'a' }), () => fresh('again', open))
    assert.equal(await bodyOf(again), 'again')
    const other = world.cache(options)
    assert.equal(await bodyOf(cache.handle(get(), () => fresh('new'))), 'again')
    await change(cache)
    assert.equal(await bodyOf(other.handle(get(), () => fresh('new'))), 'new')
  })

  test('a response with a wider Vary is not stored after an invalidation', async () => {
    await using world = new World(await setup())
    await bodyOf(world.cache().handle(get({ a: '1' }), () => fresh('first', { vary: 'a' })))
    const request = get({ a: '2', b: '1' })
    const { cache, end } = await begun(world, {}, request, { vary: 'a, b' })
    await change(cache)
    assert.equal(await end(), 'old')
    assert.equal(await bodyOf(cache.handle(request, () => fresh('new', { vary: 'a, b' }))), 'new')
  })
})

describe('http review, an origin that hangs', () => {
  test('an origin that does not begin ends the run for all; the next request calls it again', async () => {
    await using world = new World()
    const cache = world.cache({ timeout: 100 })
    let aborted = 0
    const hangs = ({ signal }: OriginRequest): Promise<OriginResponse> => {
      signal?.addEventListener('abort', () => aborted++)
      return new Promise(() => undefined)
    }
    for (const headers of [{}, { authorization: 'a' }]) {
      const answer = await cache.handle(get(headers), hangs)
      assert.equal(answer.status, 504)
    }
    await until(() => aborted === 2, { what: 'the signal of the origin to abort' })
    assert.equal(await bodyOf(cache.handle(get(), () => fresh('new'))), 'new')
  })

  test('a run that nobody waits for ends', async () => {
    await using world = new World()
    const cache = world.cache()
    const gone = new AbortController()
    const asked = pDefer<AbortSignal>()
    const answer = cache.handle(get({}, { signal: gone.signal }), ({ signal }) => {
      asked.resolve(signal as AbortSignal)
      return new Promise(() => undefined)
    })
    const signal = await asked.promise
    gone.abort()
    await assert.rejects(async () => answer, { code: 'E_ABORTED' })
    if (!signal.aborted) await once(signal, 'abort')
    assert.equal(await bodyOf(cache.handle(get(), () => fresh('new'))), 'new')
  })

  test('an endless body is discarded with its reader, and delays the others only for maxBodyTime', async () => {
    await using world = new World()
    const cache = world.cache({ maxBodyTime: 200 })
    const body = new Readable({ objectMode: true, read() {} })
    body.push('a')
    body.push('b')
    const gone = new AbortController()
    const first = await cache.handle(get({}, { signal: gone.signal }), () => fresh(body))
    const reader = (first.body as AsyncIterable<Buffer>)[Symbol.asyncIterator]()
    assert.equal(String((await reader.next()).value), 'a')
    assert.equal(await bodyOf(cache.handle(get(), () => fresh('own'))), 'own')
    body.push('c')
    for (const piece of ['b', 'c']) assert.equal(String((await reader.next()).value), piece)
    assert.equal(body.destroyed, false)
    gone.abort()
    await reader.return?.()
    await until(() => body.destroyed, { what: 'the body to be discarded' })
  })

  test('a body whose reader has left is discarded while it streams', async () => {
    await using world = new World()
    const cache = world.cache()
    const body = new Readable({ objectMode: true, read() {} })
    body.push('a')
    const gone = new AbortController()
    await cache.handle(get({}, { signal: gone.signal }), () => fresh(body))
    gone.abort()
    await until(() => body.destroyed, { what: 'the body to be discarded' })
    assert.equal(await bodyOf(cache.handle(get(), () => fresh('new'))), 'new')
  })

  test('a failed refresh is not repeated at once', async () => {
    await using world = new World()
    const cache = world.cache()
    const stale = { 'cache-control': 'max-age=0, stale-while-revalidate=60' }
    let asked = 0
    await bodyOf(cache.handle(get(), () => fresh('old', stale)))
    const fails = () => {
      asked++
      return { status: 500, headers: {} }
    }
    for (let i = 0; i < 5; i++) {
      assert.equal(await bodyOf(cache.handle(get(), fails)), 'old')
      await until(() => asked > 0, { what: 'the refresh' })
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    assert.equal(asked, 1)
  })
})
