// Stale responses: served, refreshed and validated; and the invalidation of stored ones.

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import type { HeaderFields, HttpResponse, OriginRequest, OriginResponse } from '../../src/memoize/index.ts'
import { CacheWorld, fresh, get, HOUR, read, TestOrigin } from '../support/http-cache-scene.ts'
import { until } from '../support/wait.ts'

const date = (at: number): string => new Date(at).toUTCString()

describe('http cache, stale responses', () => {
  /** A response with a lifetime of 100 s and an age of 150 s. */
  const stale = (body: string, more = '', headers: HeaderFields = {}): OriginResponse => ({
    status: 200,
    headers: { 'cache-control': `max-age=100, ${more}`, age: '150', ...headers },
    body,
  })

  test('one process refreshes, while all serve the stale response at once', async () => {
    await using world = new CacheWorld({}, 4)
    const gate = pDefer<OriginResponse>()
    const origin = new TestOrigin((_, count) =>
      count === 1 ? stale('old', 'stale-while-revalidate=1000') : gate.promise,
    )
    await read(world.cache.handle(get(), origin.ask))
    for (let i = 0; i < 40; i++) {
      const { body, headers } = await read(world.caches[i % 4]?.handle(get(), origin.ask) as HttpResponse)
      assert.deepEqual([body, headers['age']], ['old', '150'])
      assert.match(String(headers['cache-status']), /^soloflight; hit; ttl=-(49|50)$/)
    }
    gate.resolve(fresh('new'))
    for (const cache of world.caches) {
      await until(async () => (await read(cache.handle(get(), origin.ask))).body === 'new', {
        what: 'the new response',
      })
    }
    assert.equal(origin.count, 2)
  })

  test('a failed refresh leaves the stale response, and is repeated later', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin((_, count) => {
      if (count === 2) throw new Error('down')
      return count === 1 ? stale('old', 'stale-while-revalidate=1000') : fresh('new')
    })
    await read(world.cache.handle(get(), origin.ask))
    await until(async () => (await read(world.cache.handle(get(), origin.ask))).body === 'new', {
      what: 'the new response',
    })
    assert.equal(origin.count, 3)
  })

  test('an error of a refresh does not replace the stale response, even with errorTtl', async () => {
    await using world = new CacheWorld({ errorTtl: HOUR })
    const origin = new TestOrigin((_, count) =>
      count === 1
        ? stale('old', 'stale-while-revalidate=1000')
        : { status: 503, headers: { 'cache-control': 'max-age=60' }, body: 'down' },
    )
    await read(world.cache.handle(get(), origin.ask))
    await until(
      async () => {
        assert.equal((await read(world.cache.handle(get(), origin.ask))).body, 'old')
        return origin.count > 3
      },
      { what: 'several refreshes' },
    )
  })

  test('a refresh that yields a 404 or a private response removes the stale one', async () => {
    for (const other of [
      { status: 404, headers: {} },
      { status: 200, headers: { 'cache-control': 'private' } },
    ]) {
      await using world = new CacheWorld()
      const origin = new TestOrigin((_, count) =>
        count === 1 ? stale('old', 'stale-while-revalidate=1000') : { ...other, body: 'other' },
      )
      await read(world.cache.handle(get(), origin.ask))
      const body = async () => (await read(world.cache.handle(get(), origin.ask))).body
      await until(async () => (await body()) === 'other', { what: 'the old response to be removed' })
    }
  })

  test('the body of a private response to a refresh is discarded', async () => {
    await using world = new CacheWorld()
    const body = Readable.from(['x'])
    const origin = new TestOrigin((_, count) =>
      count === 1 ? stale('old', 'stale-while-revalidate=1000') : fresh(body, { 'cache-control': 'private' }),
    )
    await read(world.cache.handle(get(), origin.ask))
    await read(world.cache.handle(get(), origin.ask))
    await until(() => body.destroyed, { what: 'the body to be discarded' })
  })

  test('stale-if-error is served when the origin fails', async () => {
    for (const failing of [
      () => Promise.reject(new Error('down')),
      () => ({ status: 503, headers: {}, body: 'down' }),
    ]) {
      await using world = new CacheWorld({}, 2)
      const origin = new TestOrigin((_, count) =>
        count === 1 ? stale('old', 'stale-if-error=1000') : failing(),
      )
      await read(world.cache.handle(get(), origin.ask))
      const responses = world.caches.map((cache) => read(cache.handle(get(), origin.ask)))
      for (const { status, body } of await Promise.all(responses))
        assert.deepEqual([status, body], [200, 'old'])
      assert.ok(origin.count > 1, 'the origin was called')
    }
  })

  test('a response with must-revalidate is not served when the origin fails', async () => {
    await using world = new CacheWorld({ staleIfError: HOUR, staleWhileRevalidate: HOUR })
    const origin = new TestOrigin((_, count) =>
      count === 1
        ? stale('old', 'must-revalidate, stale-if-error=1000', { etag: '"a"' })
        : { status: 503, headers: {}, body: 'down' },
    )
    await read(world.cache.handle(get(), origin.ask))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).status, 503)
  })

  test('with revalidate the origin validates a stale response', async () => {
    await using world = new CacheWorld({ revalidate: true })
    const origin = new TestOrigin((_, count) => {
      if (count === 1)
        return stale('old', '', { etag: '"a"', 'last-modified': date(0), 'x-a': '1', 'x-b': '1' })
      return { status: 304, headers: { 'cache-control': 'max-age=60', etag: '"a"', 'x-a': '2' } }
    })
    await read(world.cache.handle(get(), origin.ask))
    const confirmed = await read(world.cache.handle(get(), origin.ask))
    assert.deepEqual(
      [confirmed.status, confirmed.body, confirmed.headers['x-a'], confirmed.headers['x-b']],
      [200, 'old', '2', '1'],
    )
    assert.equal(confirmed.headers['cache-status'], 'soloflight; fwd=stale; fwd-status=304; stored; ttl=60')
    const { headers } = origin.asked[1] as OriginRequest
    assert.deepEqual([headers['if-none-match'], headers['if-modified-since']], ['"a"', date(0)])
    assert.equal((await read(world.cache.handle(get(), origin.ask))).headers['x-a'], '2')
    assert.equal(origin.count, 2)
  })

  test('concurrent requests with no-cache share one fetch per process', async () => {
    await using world = new CacheWorld({}, 3)
    const gate = pDefer<void>()
    const origin = new TestOrigin(async (_, count) => {
      if (count > 1) await gate.promise
      return fresh(String(count))
    })
    await read(world.cache.handle(get(), origin.ask))
    const responses = Array.from({ length: 30 }, (_, i) =>
      world.caches[i % 3]?.handle(get({ 'cache-control': 'no-cache' }), origin.ask),
    )
    await until(() => origin.count > 1, { what: 'the origin to be called again' })
    gate.resolve()
    for (const response of responses)
      assert.notEqual((await read(response as Promise<HttpResponse>)).body, '1')
    assert.ok(origin.count <= 4, `${origin.count} times, at most once for each process`)
  })

  test('a response with no-cache is validated once for all requests that wait', async () => {
    await using world = new CacheWorld({ revalidate: true })
    const origin = new TestOrigin(({ headers }) =>
      headers['if-none-match'] === '"a"'
        ? { status: 304, headers: { etag: '"a"', 'cache-control': 'no-cache' } }
        : { status: 200, headers: { etag: '"a"', 'cache-control': 'no-cache' }, body: 'x' },
    )
    for (let round = 1; round <= 3; round++) {
      const responses = Array.from({ length: 20 }, () => read(world.cache.handle(get(), origin.ask)))
      for (const { status, body } of await Promise.all(responses))
        assert.deepEqual([status, body], [200, 'x'])
    }
    assert.equal(origin.asked.filter(({ headers }) => headers['if-none-match'] === undefined).length, 1)
    assert.ok(origin.count <= 8, `${origin.count} times for 60 requests`)
  })

  test('a request that waited for a response with no-cache validates it', async () => {
    await using world = new CacheWorld({ revalidate: true })
    const gate = pDefer<void>()
    const origin = new TestOrigin(async (_, count) => {
      if (count === 1) await gate.promise
      const headers = { etag: '"a"', 'cache-control': 'no-cache' }
      return count === 1 ? { status: 200, headers, body: 'x' } : { status: 304, headers }
    })
    const responses = [0, 1, 2].map(() => read(world.cache.handle(get(), origin.ask)))
    await until(() => origin.count > 0, { what: 'the origin to be called' })
    gate.resolve()
    for (const { status, body } of await Promise.all(responses)) assert.deepEqual([status, body], [200, 'x'])
    assert.equal(origin.count, 2)
    assert.equal(origin.asked[1]?.headers['if-none-match'], '"a"')
  })

  test('request directives: only-if-cached, max-age, min-fresh, no-store', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(() => ({
      status: 200,
      headers: { 'cache-control': 'max-age=100', age: '40' },
      body: 'x',
    }))
    const ask = async (control: string, url = '/page') =>
      (await read(world.cache.handle(get({ 'cache-control': control }, { url }), origin.ask))).status
    assert.equal(await ask('only-if-cached'), 504)
    assert.equal(origin.count, 0)
    await ask('')
    assert.equal(await ask('only-if-cached'), 200)
    await ask('max-age=50')
    await ask('min-fresh=50')
    assert.equal(origin.count, 1)
    await ask('max-age=30')
    assert.equal(origin.count, 2)
    await ask('no-store', '/other')
    await ask('no-store', '/other')
    assert.equal(origin.count, 4)
    assert.equal(await ask('only-if-cached', '/other'), 504)
  })
})

describe('http cache, invalidation', () => {
  test('a successful unsafe request invalidates in all processes', async () => {
    await using world = new CacheWorld({}, 2)
    const origin = new TestOrigin((_, count) => fresh(String(count)))
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'M-SEARCH', 'Whatever']) {
      const before = (await read(world.caches[1]?.handle(get(), origin.ask) as HttpResponse)).body
      await read(world.cache.handle(get({}, { method }), () => ({ status: 303, headers: {} })))
      const after = (await read(world.caches[1]?.handle(get(), origin.ask) as HttpResponse)).body
      assert.notEqual(after, before, method)
    }
  })

  test('a failed unsafe request and a safe method do not invalidate', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin((_, count) => fresh(String(count)))
    await read(world.cache.handle(get(), origin.ask))
    await read(world.cache.handle(get({}, { method: 'POST' }), () => ({ status: 500, headers: {} })))
    await read(world.cache.handle(get({}, { method: 'OPTIONS' }), () => ({ status: 200, headers: {} })))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, '1')
  })

  test('Location and Content-Location on the same host are invalidated too', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(({ url, headers }) => fresh(`${headers['host']}${url}`))
    const pages = [get({}, { url: '/a' }), get({}, { url: '/b' }), get({ host: 'g' }, { url: '/a' })]
    for (const page of pages) await read(world.cache.handle(page, origin.ask))
    const headers = { location: '/a', 'content-location': 'b' }
    await read(world.cache.handle(get({}, { method: 'POST', url: '/x' }), () => ({ status: 201, headers })))
    await read(
      world.cache.handle(get({}, { method: 'POST', url: '/x' }), () => ({
        status: 201,
        headers: { location: 'http://g/a' },
      })),
    )
    for (const page of pages) await read(world.cache.handle(page, origin.ask))
    assert.equal(origin.count, 5)
  })
})
