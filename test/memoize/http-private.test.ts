// Responses and fields that only one client may receive.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import type { HttpCacheOptions, HttpResponse } from '../../src/memoize/index.ts'
import { CacheWorld, fresh, get, read, TestOrigin } from '../support/http-cache-scene.ts'
import { until } from '../support/wait.ts'

describe('http cache, private responses', () => {
  test('requests that waited for a response that is private are forwarded concurrently', async () => {
    await using world = new CacheWorld({}, 2)
    let inside = 0
    const gate = pDefer<void>()
    const all = pDefer<void>()
    const origin = new TestOrigin(async ({ headers }, count) => {
      if (count === 1) await gate.promise
      else if (++inside === 9) all.resolve()
      if (count > 1) await all.promise
      return {
        status: 200,
        headers: { 'cache-control': 'private, max-age=60' },
        body: `for ${headers['x-user']}`,
      }
    })
    const responses = Array.from({ length: 10 }, (_, i) =>
      world.caches[i % 2]?.handle(get({ 'x-user': String(i) }), origin.ask),
    )
    await until(() => origin.count > 0, { what: 'the origin to be called' })
    gate.resolve()
    for (const [i, response] of responses.entries()) {
      assert.equal((await read(response as Promise<HttpResponse>)).body, `for ${i}`)
    }
    assert.equal(origin.count, 10)
  })

  test('a resource whose responses were private may be shared later', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin((_, count) =>
      count < 3 ? fresh('mine', { 'cache-control': 'private' }) : fresh('ours'),
    )
    const bodies = []
    for (let i = 0; i < 5; i++) bodies.push((await read(world.cache.handle(get(), origin.ask))).body)
    assert.deepEqual(bodies, ['mine', 'mine', 'ours', 'ours', 'ours'])
    assert.equal(origin.count, 3)
  })

  test('responses with Set-Cookie are private, unless shareSetCookie is set', async () => {
    const origin = new TestOrigin((_, count) => fresh('x', { 'set-cookie': [`id=${count}`, 'b=1'] }))
    await using world = new CacheWorld()
    for (const id of ['1', '2']) {
      const { headers } = await read(world.cache.handle(get(), origin.ask))
      assert.deepEqual(headers['set-cookie'], [`id=${id}`, 'b=1'])
    }
    await using sharing = new CacheWorld({ shareSetCookie: true })
    for (let i = 0; i < 2; i++) {
      const { headers } = await read(sharing.cache.handle(get(), origin.ask))
      assert.deepEqual(headers['set-cookie'], ['id=3', 'b=1'])
    }
  })

  test('requests with a Cookie bypass the cache, unless it is in `vary` or allowed', async () => {
    const origin = new TestOrigin(({ headers }) => fresh(String(headers['cookie'])))
    const bodies = async (options: HttpCacheOptions) => {
      await using world = new CacheWorld(options)
      const seen = []
      for (const cookie of [undefined, 'a=1', 'a=2', 'a=1']) {
        seen.push((await read(world.cache.handle(get({ cookie }), origin.ask))).body)
      }
      return seen
    }
    assert.deepEqual(await bodies({}), ['undefined', 'a=1', 'a=2', 'a=1'])
    const before = origin.count
    assert.deepEqual(await bodies({ vary: ['Cookie'] }), ['undefined', 'a=1', 'a=2', 'a=1'])
    assert.equal(origin.count, before + 3)
    assert.deepEqual(await bodies({ cookies: 'allow' }), ['undefined', 'undefined', 'undefined', 'undefined'])
  })

  test('a response to Authorization is private, and such a request gets no shared response', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(({ headers }) => fresh(String(headers['authorization'])))
    const body = async (authorization?: string) =>
      (await read(world.cache.handle(get({ authorization }), origin.ask))).body
    assert.deepEqual(
      [await body('a'), await body(), await body('b'), await body()],
      ['a', 'undefined', 'b', 'undefined'],
    )
    assert.equal(origin.count, 3)
  })

  test('a response to Authorization is shared with public, s-maxage or shareAuthorized', async () => {
    for (const [options, directive] of [
      [{}, 'public'],
      [{}, 's-maxage=60'],
      [{ shareAuthorized: true }, 'max-age=60'],
    ] as const) {
      await using world = new CacheWorld(options)
      const origin = new TestOrigin(({ headers }) =>
        fresh(String(headers['authorization']), { 'cache-control': `${directive}, max-age=60` }),
      )
      for (const authorization of ['a', 'b', undefined]) {
        assert.equal(
          (await read(world.cache.handle(get({ authorization }), origin.ask))).body,
          'a',
          directive,
        )
      }
      assert.equal(origin.count, 1)
    }
  })
})

describe('http cache, private fields', () => {
  test('privateFields are not stored; a response with `private` is not shared', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin((_, count) => ({
      ...fresh(`x ${count}`, { 'x-own': `${count}`, vary: 'accept' }),
      privateFields: ['x-own', 'vary', 'x-none'],
    }))
    const headers = async () => (await read(world.cache.handle(get(), origin.ask))).headers
    const [first, second] = [await headers(), await headers()]
    assert.deepEqual(
      [first['x-own'], first['vary'], second['x-own'], second['vary']],
      ['1', 'accept', undefined, 'accept'],
    )
    const denied = new TestOrigin((_, count) => ({
      ...fresh(`x ${count}`, { 'cache-control': 'private', 'x-own': 'a' }),
      privateFields: ['cache-control', 'x-own'],
    }))
    const unshared = new TestOrigin((_, count) => ({
      ...fresh(`x ${count}`, { 'x-own': 'a' }),
      private: true,
    }))
    for (const [url, { ask }] of Object.entries({ '/denied': denied, '/unshared': unshared }))
      for (const body of ['x 1', 'x 2']) {
        const response = await read(world.cache.handle(get({}, { url }), ask))
        assert.deepEqual([response.body, response.headers['x-own']], [body, 'a'], url)
      }
  })

  test('fields in private="…" and no-cache="…" are not stored', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(
      fresh('x', {
        'cache-control': 'max-age=60, private="x-one", no-cache="x-two"',
        'x-one': '1',
        'x-two': '2',
        'x-all': '3',
      }),
    )
    const names = ['x-one', 'x-two', 'x-all']
    const first = await read(world.cache.handle(get(), origin.ask))
    assert.deepEqual(
      names.map((name) => first.headers[name]),
      ['1', '2', '3'],
    )
    const second = await read(world.cache.handle(get(), origin.ask))
    assert.deepEqual(
      names.map((name) => second.headers[name]),
      [undefined, undefined, '3'],
    )
    assert.equal(origin.count, 1)
    await using small = new CacheWorld({ maxBody: 0 })
    const alone = await read(small.cache.handle(get(), origin.ask))
    assert.equal(alone.headers['x-one'], '1')
  })
})
