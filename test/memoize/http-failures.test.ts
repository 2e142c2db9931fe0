// Origins that fail, clients that leave, and functions of the user that throw.

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import type { HttpCache, HttpResponse, OriginResponse } from '../../src/memoize/index.ts'
import { CacheWorld, fresh, get, read, TestOrigin } from '../support/http-cache-scene.ts'
import { until } from '../support/wait.ts'

describe('http cache, failures', () => {
  test('an error of the origin goes to its own request only; the others fetch again', async () => {
    await using world = new CacheWorld({}, 2)
    const thrown = Object.assign(new Error('down'), { status: 503 })
    const gate = pDefer<never>()
    const origin = new TestOrigin((_, count) => (count === 1 ? gate.promise : fresh('whole')))
    const responses = [0, 0, 1].map(async (i) => (world.caches[i] as HttpCache).handle(get(), origin.ask))
    await until(() => origin.count > 0, { what: 'the origin to be called' })
    gate.reject(thrown)
    const settled = await Promise.allSettled(responses)
    assert.equal(origin.count, 2)
    assert.deepEqual(
      settled.flatMap((result) => (result.status === 'rejected' ? [result.reason] : [])),
      [thrown],
    )
  })

  test('a body that fails, or does not have its stated length, is not stored', async () => {
    const bodies: OriginResponse[] = [
      fresh(
        (async function* () {
          yield 'hel'
          throw new Error('cut')
        })(),
      ),
      fresh('hel', { 'content-length': '5' }),
      fresh('hello world', { 'content-length': '5' }),
      fresh('hello', { 'content-length': ['5', '6'] }),
    ]
    for (const broken of bodies) {
      await using world = new CacheWorld()
      const origin = new TestOrigin((_, count) => (count === 1 ? broken : fresh('whole')))
      await assert.rejects(async () => read(world.cache.handle(get(), origin.ask)))
      assert.equal((await read(world.cache.handle(get(), origin.ask))).body, 'whole')
    }
  })

  test('a body longer than maxBody is private and complete, and is not stored', async () => {
    await using world = new CacheWorld({ maxBody: 10 })
    const pieces = ['0123456', '789', 'abc', 'def']
    const bodies = [() => pieces.join(''), () => Readable.from(pieces)]
    for (const body of bodies) {
      const origin = new TestOrigin(() => fresh(body()))
      for (let i = 0; i < 2; i++)
        assert.equal((await read(world.cache.handle(get(), origin.ask))).body, pieces.join(''))
      assert.equal(origin.count, 2)
    }
  })

  test('a private body is read at the pace of its client, and discarded when the client leaves', async () => {
    await using world = new CacheWorld()
    let made = 0
    const body = new Readable({
      highWaterMark: 1,
      read() {
        this.push(`${++made}`)
      },
    })
    const response = await world.cache.handle(get(), () => fresh(body, { 'cache-control': 'private' }))
    const reader = (response.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]()
    await reader.next()
    assert.ok(made < 5, `${made} pieces were made for one that was read`)
    await reader.return?.()
    assert.ok(body.destroyed, 'the source was destroyed')
    const unread = Readable.from(['x'])
    const other = await world.cache.handle(get({}, { url: '/b' }), () =>
      fresh(unread, { 'cache-control': 'private' }),
    )
    await (other.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]().return?.()
    assert.ok(unread.destroyed, 'also when nothing was read')
    const head = Readable.from(['x'])
    await world.cache.handle(get({}, { method: 'HEAD' }), () => fresh(head, { 'cache-control': 'private' }))
    assert.ok(head.destroyed, 'also for HEAD')
  })

  test('a client that leaves stops waiting; the fetch goes on for the others', async () => {
    await using world = new CacheWorld()
    const gate = pDefer<OriginResponse>()
    const origin = new TestOrigin(() => gate.promise)
    const gone = new AbortController()
    const first = world.cache.handle(get({}, { signal: gone.signal }), origin.ask)
    const second = world.cache.handle(get(), origin.ask)
    await until(() => origin.count > 0, { what: 'the origin to be called' })
    gone.abort()
    await assert.rejects(first as Promise<HttpResponse>, { code: 'E_ABORTED' })
    gate.resolve(fresh('hello'))
    assert.equal((await read(second)).body, 'hello')
    assert.equal(origin.count, 1)
  })

  test('a private response is discarded when its client has left', async () => {
    await using world = new CacheWorld()
    const gate = pDefer<OriginResponse>()
    const origin = new TestOrigin(() => gate.promise)
    const body = Readable.from(['x'])
    const gone = new AbortController()
    const first = world.cache.handle(get({}, { signal: gone.signal }), origin.ask)
    await until(() => origin.count > 0, { what: 'the origin to be called' })
    gone.abort()
    await assert.rejects(first as Promise<HttpResponse>)
    gate.resolve(fresh(body, { 'cache-control': 'private' }))
    await until(() => body.destroyed, { what: 'the body to be discarded' })
  })

  test('a request that waits longer than the timeout gets a 504', async () => {
    await using world = new CacheWorld({ timeout: 20 })
    const gate = pDefer<OriginResponse>()
    const response = await read(world.cache.handle(get(), () => gate.promise))
    assert.equal(response.status, 504)
    gate.resolve(fresh('x'))
  })

  test('a `tags` function that throws fails only requests that need the tags', async () => {
    let broken = false
    await using world = new CacheWorld({
      tags() {
        if (broken) throw new Error('no tags')
        return ['a']
      },
    })
    const origin = new TestOrigin(() =>
      fresh('x', { 'cache-control': 'max-age=100, stale-while-revalidate=1000', age: '150' }),
    )
    await read(world.cache.handle(get(), origin.ask))
    broken = true
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, 'x')
    await assert.rejects(async () => world.cache.handle(get({}, { url: '/other' }), origin.ask), /no tags/)
    broken = false
    const refreshed = async (): Promise<boolean> => {
      await read(world.cache.handle(get(), origin.ask))
      return origin.count === 2
    }
    await until(refreshed, { what: 'the repeated refresh' })
  })

  test('a `key` function that throws rejects the request', async () => {
    await using world = new CacheWorld({
      key: () => {
        throw new Error('no key')
      },
    })
    await assert.rejects(async () => world.cache.handle(get(), () => fresh('x')), /no key/)
  })
})
