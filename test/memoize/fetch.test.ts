// memoizeHandler for functions from Request to Response: by itself, and with Hono on a real server.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createAdaptorServer } from '@hono/node-server'
import { Hono } from 'hono'
import { streamText } from 'hono/streaming'
import pDefer from 'p-defer'
import { Locker, RemoteError } from '../../src/index.ts'
import { memoizeHandler } from '../../src/memoize/fetch.ts'
import { HttpWorld, onBoth } from '../support/http-scene.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000
const URL_ = 'http://one.example/page?a=1'
const FRESH = { 'cache-control': 'max-age=60' }

describe('memoize fetch', () => {
  onBoth(
    'memoize fetch - concurrent requests at two handlers run once, and each receives its own Response',
    async (world) => {
      const gate = pDefer<void>()
      const asked: Request[] = []
      const bytes = Uint8Array.from({ length: 1_000 }, (_, i) => i & 255)
      const handlers = [world.locker(), world.locker()].map((locker) =>
        memoizeHandler(locker, {}, async (request) => {
          asked.push(request)
          await gate.promise
          return new Response(bytes, { status: 203, statusText: 'So so', headers: { ...FRESH, 'x-a': 'b' } })
        }),
      )
      const crowd = Array.from({ length: 20 }, (_, i) =>
        handlers[i % 2]?.(new Request(URL_, { headers: { accept: '*/*', 'if-none-match': '"x"' } })),
      )
      await until(() => asked.length > 0, { what: 'the handler to run' })
      gate.resolve()
      const responses = await Promise.all(crowd)
      assert.equal(new Set(responses).size, 20)
      for (const response of responses) {
        assert.deepEqual([response?.status, response?.statusText], [203, 'So so'])
        assert.equal(response?.headers.get('x-a'), 'b')
        assert.deepEqual(new Uint8Array((await response?.arrayBuffer()) ?? []), bytes)
      }
      assert.equal(asked.length, 1)
      const [request] = asked
      assert.deepEqual([request?.url, request?.method, request?.headers.get('accept')], [URL_, 'GET', '*/*'])
      assert.equal(request?.headers.get('if-none-match'), null)
    },
  )

  test('memoize fetch - a hit is not a promise; it answers HEAD, conditions and Range', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = memoizeHandler(world.locker(), {}, () => {
      runs++
      return new Response('0123456789', { headers: { ...FRESH, etag: '"a"' } })
    })
    const get = (init?: RequestInit) => handler(new Request(URL_, init))
    const made = await get()
    assert.match(made.headers.get('cache-status') ?? '', /stored/)
    const hit = get()
    assert.ok(hit instanceof Response, 'a response at once')
    assert.deepEqual([await hit.text(), hit.headers.get('content-length')], ['0123456789', '10'])
    const head = await get({ method: 'HEAD' })
    assert.deepEqual([head.body, head.headers.get('content-length')], [null, '10'])
    const same = await get({ headers: { 'if-none-match': '"a"' } })
    assert.deepEqual([same.status, same.body], [304, null])
    const part = await get({ headers: { range: 'bytes=-3' } })
    assert.deepEqual([part.status, await part.text()], [206, '789'])
    assert.equal(runs, 1)
  })

  test('memoize fetch - a private response keeps its Request, its Response and its cookies', async () => {
    await using world = new HttpWorld()
    const asked: Request[] = []
    const handler = memoizeHandler(world.locker(), { ttl: HOUR }, async (request, extra: { env: string }) => {
      asked.push(request)
      const response = new Response(`${extra.env} ${request.method} ${await request.text()}`, { status: 201 })
      response.headers.append('set-cookie', 'a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT')
      response.headers.append('set-cookie', 'b=2')
      return response
    })
    const env = { env: 'test' }
    const posted = new Request(URL_, { method: 'POST', body: 'body' })
    const response = await handler(posted, env)
    assert.equal(await response.text(), 'test POST body')
    assert.equal(asked[0], posted)
    assert.equal(response.headers.get('cache-status'), 'soloflight; fwd=method')
    const cookies = ['a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT', 'b=2']
    assert.deepEqual(response.headers.getSetCookie(), cookies)
    const withCookie = new Request(URL_, { headers: { cookie: 'who=me' } })
    assert.equal((await handler(withCookie, env)).headers.get('cache-status'), 'soloflight; fwd=bypass')
    assert.equal(asked[1], withCookie)
    const withBoth = new Request(URL_, { headers: { cookie: 'who=me', authorization: 'x' } })
    assert.equal((await handler(withBoth, env)).headers.get('cache-status'), 'soloflight; fwd=bypass')
    assert.equal(asked[2], withBoth)
    // The cache sees the cookies only after the handler has run.
    for (let i = 0; i < 2; i++)
      assert.deepEqual((await handler(new Request(URL_), env)).headers.getSetCookie(), cookies)
    assert.equal(asked.length, 5)
  })

  test('memoize fetch - Cache-Status of the handler is kept, and that of the cache is added (RFC 9211 §2)', async () => {
    await using world = new HttpWorld()
    const headers = { 'cache-status': 'upstream; hit' }
    const handler = memoizeHandler(world.locker(), { ttl: HOUR }, () => new Response('page', { headers }))
    for (const [cookie, expected] of [
      [{ cookie: 'a=b' }, 'upstream; hit, soloflight; fwd=bypass'],
      [{}, 'upstream; hit, soloflight; fwd=uri-miss; stored; ttl=3600'],
    ] as const) {
      const response = await handler(new Request(URL_, { headers: cookie }))
      assert.equal(response.headers.get('cache-status'), expected)
    }
  })

  test('memoize fetch - hosts, ports and queries of the URL are keyed, whatever Host says', async () => {
    await using world = new HttpWorld()
    const handler = memoizeHandler(world.locker(), { ttl: HOUR }, (request) => new Response(request.url))
    const urls = [
      'http://a/',
      'http://b/',
      'http://a:81/',
      'http://a/?b',
      'http://a/?c',
      'https://a/x/',
      'http://a/x',
    ]
    for (let round = 0; round < 2; round++) {
      for (const url of urls) {
        const response = await handler(new Request(url, { headers: { host: 'same' } }))
        assert.equal(await response.text(), url)
      }
    }
  })

  test('memoize fetch - shared cookies keep all their lines', async () => {
    await using world = new HttpWorld()
    const handler = memoizeHandler(world.locker(), { shareSetCookie: true }, () => {
      const response = new Response('x', { headers: FRESH })
      for (const cookie of ['a=1', 'b=2']) response.headers.append('set-cookie', cookie)
      return response
    })
    for (let i = 0; i < 2; i++)
      assert.deepEqual((await handler(new Request(URL_))).headers.getSetCookie(), ['a=1', 'b=2'])
  })

  test('memoize fetch - a request with a body is shared by a key that includes it', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const key = ({ incoming }: { incoming?: Request | undefined }) =>
      incoming?.headers.get('x-digest') ?? undefined
    const handler = memoizeHandler(world.locker(), { methods: ['POST'], key }, async (request) => {
      runs++
      return new Response(`${request.method} ${await request.text()}`, { headers: FRESH })
    })
    const post = async (body: string) =>
      (await handler(new Request(URL_, { method: 'POST', body, headers: { 'x-digest': body } }))).text()
    assert.deepEqual([await post('a'), await post('a'), await post('b')], ['POST a', 'POST a', 'POST b'])
    assert.equal(runs, 2)
    // The body is still there when the handler runs again.
    const gate = pDefer<void>()
    const locker = new Locker()
    const slow = memoizeHandler(locker, { methods: ['POST'], key }, async (request) => {
      const text = await request.text()
      if (runs++ === 2) await gate.promise
      return new Response(text)
    })
    const closed = slow(new Request(URL_, { method: 'POST', body: 'c', headers: { 'x-digest': 'c' } }))
    await until(() => runs === 3, { what: 'the handler to run' })
    await locker.close({ grace: 0 })
    assert.equal(await (await closed).text(), 'c')
    assert.equal(runs, 4)
    gate.resolve()
  })

  test('memoize fetch - failures, signals, and a closed locker', async () => {
    await using world = new HttpWorld()
    const failure = new TypeError('no database')
    const gate = pDefer<void>()
    const options = { timeout: 10_000 }
    const handlers = [world.locker(), world.locker()].map((locker) =>
      memoizeHandler(locker, options, async (request) => {
        await gate.promise
        if (request.url.endsWith('/fails')) throw failure
        return new Response('late', { headers: FRESH })
      }),
    )
    const fails = Promise.allSettled(
      handlers.map(async (handler) => handler(new Request('http://one.example/fails'))),
    )
    const gone = new AbortController()
    const left = handlers[0]?.(new Request(URL_, { signal: gone.signal })) as Promise<Response>
    const stays = handlers[0]?.(new Request(URL_)) as Promise<Response>
    gone.abort()
    await assert.rejects(left, { code: 'E_ABORTED' })
    gate.resolve()
    assert.equal(await (await stays).text(), 'late')
    const outcomes = (await fails).map((each) => (each.status === 'rejected' ? each.reason : each))
    assert.ok(outcomes.includes(failure), 'its own caller has the very error')
    for (const outcome of outcomes)
      assert.ok(outcome === failure || outcome instanceof RemoteError, String(outcome))
    const locker = new Locker()
    const handler = memoizeHandler(locker, {}, () => new Response('alone'))
    await locker.close()
    assert.equal(await (await handler(new Request(URL_))).text(), 'alone')
    assert.throws(() => memoizeHandler(locker, {}, undefined as never), TypeError)
  })

  test('memoize fetch - a large stream is read with backpressure, and cancelled with its reader', async () => {
    await using world = new HttpWorld()
    let pulled = 0
    let cancelled = false
    const handler = memoizeHandler(world.locker(), { maxBody: 100_000 }, () => {
      const body = new ReadableStream({
        pull(controller) {
          pulled++
          controller.enqueue(new Uint8Array(10_000))
        },
        cancel() {
          cancelled = true
        },
      })
      return new Response(body, { headers: FRESH })
    })
    const response = await handler(new Request(URL_))
    const reader = response.body?.getReader()
    for (let i = 0; i < 20; i++) assert.equal((await reader?.read())?.value?.length, 10_000)
    assert.ok(pulled < 40, `${pulled} pieces for 20 that were read`)
    await reader?.cancel()
    await until(() => cancelled, { what: 'the source to be cancelled' })
  })
})

describe('memoize fetch, Hono', () => {
  test('memoize fetch - Hono in front of it and behind it, over real connections', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const pages = new Hono()
    pages.get('/json', (c) => {
      runs++
      return c.json({ who: c.req.query('who') })
    })
    pages.get('/stream', (c) => {
      runs++
      return streamText(c, async (stream) => {
        for (const word of ['one ', 'two ', 'three']) {
          await stream.sleep(5)
          await stream.write(word)
        }
      })
    })
    pages.get('/who', (c) => {
      c.header('set-cookie', `who=${c.req.header('x-who')}`)
      return c.text(`for ${c.req.header('x-who')}`)
    })
    pages.get('/boom', () => {
      runs++
      throw new Error('boom')
    })
    pages.onError((error, c) => c.text(`page of ${error.message}`, 500))
    const memoized = memoizeHandler(world.locker(), { ttl: HOUR }, pages.fetch)
    const app = new Hono().all('*', (c) => memoized(c.req.raw))
    const direct = memoizeHandler(
      world.locker(),
      { ttl: HOUR, key: ({ url }) => `direct ${url}` },
      pages.fetch,
    )
    for (const fetch of [app.fetch, direct]) {
      const server = await world.listen(createAdaptorServer({ fetch }))
      for (const [path, text] of [
        ['/json?who=a', '{"who":"a"}'],
        ['/json?who=b', '{"who":"b"}'],
        ['/stream', 'one two three'],
      ] as const) {
        runs = 0
        const answers = await Promise.all(Array.from({ length: 10 }, () => server.ask(path)))
        for (const answer of [...answers, await server.ask(path)])
          assert.deepEqual([answer.status, answer.text], [200, text])
        assert.equal(runs, 1, path)
      }
      const clients = await Promise.all(
        Array.from({ length: 20 }, (_, i) => server.ask('/who', { headers: { 'x-who': `${i}` } })),
      )
      for (const [i, { text, headers }] of clients.entries())
        assert.deepEqual([text, headers['set-cookie']], [`for ${i}`, [`who=${i}`]])
      const failed = await server.ask('/boom')
      assert.deepEqual([failed.status, failed.text], [500, 'page of boom'])
      assert.equal((await server.ask('/none')).status, 404)
    }
  })
})
