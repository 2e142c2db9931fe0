import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { Locker, MemoryStore } from '../../src/index.ts'
import {
  fromRawHeaders,
  type HeaderFields,
  HttpCache,
  type HttpCacheOptions,
  type HttpRequest,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../../src/memoize/engine/index.ts'
import { Recording, RecordingBudget } from '../../src/memoize/engine/recording.ts'
import { until } from '../support/wait.ts'

// The HTTP cache between requests and an origin: in one process, and in several as the memory store lets lockers be.
const HOUR = 3_600_000
const date = (at: number): string => new Date(at).toUTCString()

const get = (headers: HeaderFields = {}, more: Partial<HttpRequest> = {}): HttpRequest => ({
  method: 'GET',
  url: '/page',
  headers: { host: 'example.org', ...headers },
  ...more,
})

/** What a client sees of an answer. */
async function read(answer: HttpResponse | Promise<HttpResponse>) {
  const { status, headers, body } = await answer
  const chunks: Uint8Array[] = []
  if (Buffer.isBuffer(body)) chunks.push(body)
  else for await (const chunk of body ?? []) chunks.push(chunk)
  return { status, headers: fromRawHeaders(headers), body: Buffer.concat(chunks).toString() }
}

/** An origin that answers as it is told, and notes what it was asked. */
class TestOrigin {
  readonly asked: OriginRequest[] = []
  answer: (request: OriginRequest, count: number) => OriginResponse | Promise<OriginResponse>

  constructor(answer: OriginResponse | TestOrigin['answer']) {
    this.answer = typeof answer === 'function' ? answer : () => answer
  }

  get count(): number {
    return this.asked.length
  }

  readonly ask = (request: OriginRequest): OriginResponse | Promise<OriginResponse> => {
    this.asked.push(request)
    return this.answer(request, this.asked.length)
  }
}

/** Caches that share what they keep, as so many processes do. */
class World implements AsyncDisposable {
  readonly #lockers: Locker[]
  readonly caches: HttpCache[]

  constructor(options: HttpCacheOptions = {}, count = 1) {
    const store = new MemoryStore()
    this.#lockers = Array.from({ length: count }, () => new Locker({ store }))
    this.caches = this.#lockers.map((locker) => new HttpCache(locker, options))
  }

  get cache(): HttpCache {
    return this.caches[0] as HttpCache
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#lockers.map((locker) => locker.close({ grace: 0 })))
  }
}

const fresh = (body: OriginResponse['body'], headers: HeaderFields = {}, status = 200): OriginResponse => ({
  status,
  headers: { 'cache-control': 'max-age=60', ...headers },
  body,
})

describe('http cache', () => {
  test('what this process has is answered at once, by the same answer', async () => {
    await using world = new World()
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

  test('a hundred requests at four processes ask the origin once', async () => {
    await using world = new World({}, 4)
    const bytes = Buffer.from([0, 255, 13, 10, 128])
    const gate = pDefer<OriginResponse>()
    const origin = new TestOrigin(() => gate.promise)
    const answers = Array.from({ length: 100 }, (_, i) => world.caches[i % 4]?.handle(get(), origin.ask))
    await until(() => origin.count > 0, { what: 'the origin to be asked' })
    gate.resolve({
      status: 201,
      statusText: 'Made',
      headers: { a: 'b' },
      body: Readable.from([bytes, bytes]),
    })
    for (const answer of await Promise.all(answers)) {
      assert.deepEqual([answer?.status, answer?.statusText], [201, 'Made'])
      assert.deepEqual(answer?.body, Buffer.concat([bytes, bytes]))
    }
    assert.equal(origin.count, 1)
  })

  test('an answer that says nothing of freshness is for those who wait, and no later', async () => {
    await using world = new World({}, 2)
    const origin = new TestOrigin((_, count) => ({ status: 200, headers: {}, body: String(count) }))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, '1')
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, '2')
  })

  test('ttl and errorTtl are for answers that say nothing', async () => {
    await using world = new World({ ttl: HOUR, errorTtl: HOUR })
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

  test('HEAD is answered out of what GET keeps, and the other way round', async () => {
    await using world = new World()
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

  test('conditions and ranges are answered out of the whole response', async () => {
    await using world = new World()
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

  test('conditions are for successes: a private error is told as it is', async () => {
    await using world = new World()
    const headers = { etag: '"a"', 'cache-control': 'private' }
    const ask = async (status: number) =>
      (
        await read(
          world.cache.handle(get({ 'if-none-match': '"a"' }), () => ({ status, headers, body: 'x' })),
        )
      ).status
    assert.deepEqual([await ask(404), await ask(200)], [404, 304])
  })

  test('the origin is not told what is of a connection', async () => {
    await using world = new World()
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

  test('a range of what is not kept goes to the origin as it is, and is not kept', async () => {
    await using world = new World()
    const origin = new TestOrigin(fresh('01', { 'content-range': 'bytes 0-1/10' }, 206))
    for (let i = 0; i < 2; i++) await read(world.cache.handle(get({ range: 'bytes=0-1' }), origin.ask))
    assert.deepEqual(
      origin.asked.map(({ headers }) => headers['range']),
      ['bytes=0-1', 'bytes=0-1'],
    )
  })

  test('a key of the user, and methods with a body', async () => {
    await using world = new World({
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

  test('options that are none are refused', () => {
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

  test('Cache-Status has the name that it is given, or is left out', async () => {
    for (const [name, told] of [
      ['edge', 'edge; fwd=uri-miss; stored; ttl=60'],
      [false, undefined],
    ] as const) {
      await using world = new World({ cacheStatus: name })
      const { headers } = await read(world.cache.handle(get(), () => fresh('x')))
      assert.equal(headers['cache-status'], told)
    }
  })
})

describe('http cache, vary', () => {
  const origin = () =>
    new TestOrigin(({ headers }) => fresh(`hello ${headers['accept-language']}`, { vary: 'Accept-Language' }))

  test('each variant is made once, wherever', async () => {
    await using world = new World({}, 3)
    const gate = pDefer<void>()
    const asked = new TestOrigin(async (request) => {
      await gate.promise
      return origin().ask(request)
    })
    const answers = Array.from({ length: 30 }, (_, i) =>
      world.caches[i % 3]?.handle(get({ 'accept-language': `l${i % 5}` }), asked.ask),
    )
    await until(() => asked.count > 0, { what: 'the origin to be asked' })
    gate.resolve()
    for (const [i, answer] of answers.entries()) {
      assert.equal((await read(answer as Promise<HttpResponse>)).body, `hello l${i % 5}`)
    }
    assert.equal(asked.count, 5)
  })

  test('fields that the user names are keyed though no Vary names them', async () => {
    await using world = new World({ vary: ['X-Tenant'] })
    const asked = new TestOrigin(({ headers }) => fresh(String(headers['x-tenant'])))
    for (const tenant of ['a', 'b', 'a', 'b']) {
      assert.equal((await read(world.cache.handle(get({ 'x-tenant': tenant }), asked.ask))).body, tenant)
    }
    assert.equal(asked.count, 2)
    const hit = world.cache.handle(get({ 'x-tenant': 'a' }), asked.ask)
    assert.ok(!(hit instanceof Promise), 'a variant is answered at once too')
  })

  test('when it varies by more than was known, the old variants are not used any more', async () => {
    await using world = new World()
    const asked = new TestOrigin(({ headers }, count) =>
      fresh(`${headers['a']} ${headers['b']}`, { vary: count === 1 ? 'a' : 'a, b' }),
    )
    const body = async (a: string, b: string) =>
      (await read(world.cache.handle(get({ a, b }), asked.ask))).body
    assert.equal(await body('1', '1'), '1 1')
    assert.equal(await body('1', '2'), '1 1', 'as the first Vary said')
    assert.equal(await body('2', '1'), '2 1')
    assert.equal(await body('1', '2'), '1 2')
    assert.equal(await body('2', '2'), '2 2')
    assert.equal(await body('2', '1'), '2 1')
    assert.equal(asked.count, 5, 'the one that told of the wider Vary is not kept itself')
    assert.equal(await body('2', '1'), '2 1')
    assert.equal(asked.count, 5)
  })

  test('an invalidated resource loses all its variants', async () => {
    await using world = new World({}, 2)
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

describe('http cache, private answers', () => {
  test('those who waited for what turns out private are answered side by side, each by its own', async () => {
    await using world = new World({}, 2)
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
    const answers = Array.from({ length: 10 }, (_, i) =>
      world.caches[i % 2]?.handle(get({ 'x-user': String(i) }), origin.ask),
    )
    await until(() => origin.count > 0, { what: 'the origin to be asked' })
    gate.resolve()
    for (const [i, answer] of answers.entries()) {
      assert.equal((await read(answer as Promise<HttpResponse>)).body, `for ${i}`)
    }
    assert.equal(origin.count, 10)
  })

  test('what is private now may be shared later', async () => {
    await using world = new World()
    const origin = new TestOrigin((_, count) =>
      count < 3 ? fresh('mine', { 'cache-control': 'private' }) : fresh('ours'),
    )
    const bodies = []
    for (let i = 0; i < 5; i++) bodies.push((await read(world.cache.handle(get(), origin.ask))).body)
    assert.deepEqual(bodies, ['mine', 'mine', 'ours', 'ours', 'ours'])
    assert.equal(origin.count, 3)
  })

  test('cookies that are set are not shared, unless told so', async () => {
    const origin = new TestOrigin((_, count) => fresh('x', { 'set-cookie': [`id=${count}`, 'b=1'] }))
    await using world = new World()
    for (const id of ['1', '2']) {
      const { headers } = await read(world.cache.handle(get(), origin.ask))
      assert.deepEqual(headers['set-cookie'], [`id=${id}`, 'b=1'])
    }
    await using sharing = new World({ shareSetCookie: true })
    for (let i = 0; i < 2; i++) {
      const { headers } = await read(sharing.cache.handle(get(), origin.ask))
      assert.deepEqual(headers['set-cookie'], ['id=3', 'b=1'])
    }
  })

  test('requests with a Cookie pass by, unless it is keyed or allowed', async () => {
    const origin = new TestOrigin(({ headers }) => fresh(String(headers['cookie'])))
    const bodies = async (options: HttpCacheOptions) => {
      await using world = new World(options)
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

  test('an answer to credentials is for them alone, and they get none that was made without', async () => {
    await using world = new World()
    const origin = new TestOrigin(({ headers }) => fresh(String(headers['authorization'])))
    const body = async (authorization?: string) =>
      (await read(world.cache.handle(get({ authorization }), origin.ask))).body
    assert.deepEqual(
      [await body('a'), await body(), await body('b'), await body()],
      ['a', 'undefined', 'b', 'undefined'],
    )
    assert.equal(origin.count, 3)
  })

  test('unless the response or the user says that it may be shared', async () => {
    for (const [options, directive] of [
      [{}, 'public'],
      [{}, 's-maxage=60'],
      [{ shareAuthorized: true }, 'max-age=60'],
    ] as const) {
      await using world = new World(options)
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

describe('http cache, stale answers', () => {
  /** Fresh for 100 s, and older than that already. */
  const stale = (body: string, more = '', headers: HeaderFields = {}): OriginResponse => ({
    status: 200,
    headers: { 'cache-control': `max-age=100, ${more}`, age: '150', ...headers },
    body,
  })

  test('one process refreshes while all are answered by the stale one at once', async () => {
    await using world = new World({}, 4)
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
        what: 'the new one',
      })
    }
    assert.equal(origin.count, 2)
  })

  test('a refresh that fails leaves the stale one, and the next request tries again', async () => {
    await using world = new World()
    const origin = new TestOrigin((_, count) => {
      if (count === 2) throw new Error('down')
      return count === 1 ? stale('old', 'stale-while-revalidate=1000') : fresh('new')
    })
    await read(world.cache.handle(get(), origin.ask))
    await until(async () => (await read(world.cache.handle(get(), origin.ask))).body === 'new', {
      what: 'the new one',
    })
    assert.equal(origin.count, 3)
  })

  test('a refresh that failed does not take the place of the stale one, whatever is kept of errors', async () => {
    await using world = new World({ errorTtl: HOUR })
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

  test('but what the origin has in its place, though not for all, ends it', async () => {
    for (const other of [
      { status: 404, headers: {} },
      { status: 200, headers: { 'cache-control': 'private' } },
    ]) {
      await using world = new World()
      const origin = new TestOrigin((_, count) =>
        count === 1 ? stale('old', 'stale-while-revalidate=1000') : { ...other, body: 'other' },
      )
      await read(world.cache.handle(get(), origin.ask))
      const body = async () => (await read(world.cache.handle(get(), origin.ask))).body
      await until(async () => (await body()) === 'other', { what: 'the old one to be forgotten' })
    }
  })

  test('a refresh that turns out private is read by nobody', async () => {
    await using world = new World()
    const body = Readable.from(['x'])
    const origin = new TestOrigin((_, count) =>
      count === 1 ? stale('old', 'stale-while-revalidate=1000') : fresh(body, { 'cache-control': 'private' }),
    )
    await read(world.cache.handle(get(), origin.ask))
    await read(world.cache.handle(get(), origin.ask))
    await until(() => body.destroyed, { what: 'the body to be let go' })
  })

  test('when the origin fails, what may stand in for it does', async () => {
    for (const failing of [
      () => Promise.reject(new Error('down')),
      () => ({ status: 503, headers: {}, body: 'down' }),
    ]) {
      await using world = new World({}, 2)
      const origin = new TestOrigin((_, count) =>
        count === 1 ? stale('old', 'stale-if-error=1000') : failing(),
      )
      await read(world.cache.handle(get(), origin.ask))
      const answers = world.caches.map((cache) => read(cache.handle(get(), origin.ask)))
      for (const { status, body } of await Promise.all(answers))
        assert.deepEqual([status, body], [200, 'old'])
      assert.ok(origin.count > 1, 'the origin was asked')
    }
  })

  test('and what may not does not', async () => {
    await using world = new World({ staleIfError: HOUR, staleWhileRevalidate: HOUR })
    const origin = new TestOrigin((_, count) =>
      count === 1
        ? stale('old', 'must-revalidate, stale-if-error=1000', { etag: '"a"' })
        : { status: 503, headers: {}, body: 'down' },
    )
    await read(world.cache.handle(get(), origin.ask))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).status, 503)
  })

  test('an origin that understands conditions is asked whether it has changed', async () => {
    await using world = new World({ revalidate: true })
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

  test('no-cache of many requests at once asks once more, for all of them', async () => {
    await using world = new World({}, 3)
    const gate = pDefer<void>()
    const origin = new TestOrigin(async (_, count) => {
      if (count > 1) await gate.promise
      return fresh(String(count))
    })
    await read(world.cache.handle(get(), origin.ask))
    const answers = Array.from({ length: 30 }, (_, i) =>
      world.caches[i % 3]?.handle(get({ 'cache-control': 'no-cache' }), origin.ask),
    )
    await until(() => origin.count > 1, { what: 'the origin to be asked again' })
    gate.resolve()
    for (const answer of answers) assert.notEqual((await read(answer as Promise<HttpResponse>)).body, '1')
    assert.ok(origin.count <= 4, `${origin.count} times, at most once for each process`)
  })

  test('a response that must be confirmed each time is confirmed for all who wait', async () => {
    await using world = new World({ revalidate: true })
    const origin = new TestOrigin(({ headers }) =>
      headers['if-none-match'] === '"a"'
        ? { status: 304, headers: { etag: '"a"', 'cache-control': 'no-cache' } }
        : { status: 200, headers: { etag: '"a"', 'cache-control': 'no-cache' }, body: 'x' },
    )
    for (let round = 1; round <= 3; round++) {
      const answers = Array.from({ length: 20 }, () => read(world.cache.handle(get(), origin.ask)))
      for (const { status, body } of await Promise.all(answers)) assert.deepEqual([status, body], [200, 'x'])
    }
    assert.equal(origin.asked.filter(({ headers }) => headers['if-none-match'] === undefined).length, 1)
    assert.ok(origin.count <= 8, `${origin.count} times for 60 requests`)
  })

  test('whoever waited for one that must be confirmed each time has it confirmed', async () => {
    await using world = new World({ revalidate: true })
    const gate = pDefer<void>()
    const origin = new TestOrigin(async (_, count) => {
      if (count === 1) await gate.promise
      const headers = { etag: '"a"', 'cache-control': 'no-cache' }
      return count === 1 ? { status: 200, headers, body: 'x' } : { status: 304, headers }
    })
    const answers = [0, 1, 2].map(() => read(world.cache.handle(get(), origin.ask)))
    await until(() => origin.count > 0, { what: 'the origin to be asked' })
    gate.resolve()
    for (const { status, body } of await Promise.all(answers)) assert.deepEqual([status, body], [200, 'x'])
    assert.equal(origin.count, 2)
    assert.equal(origin.asked[1]?.headers['if-none-match'], '"a"')
  })

  test('what a request demands', async () => {
    await using world = new World()
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

describe('http cache, changes', () => {
  test('a change that succeeds is followed by a new answer, everywhere', async () => {
    await using world = new World({}, 2)
    const origin = new TestOrigin((_, count) => fresh(String(count)))
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'M-SEARCH', 'Whatever']) {
      const before = (await read(world.caches[1]?.handle(get(), origin.ask) as HttpResponse)).body
      await read(world.cache.handle(get({}, { method }), () => ({ status: 303, headers: {} })))
      const after = (await read(world.caches[1]?.handle(get(), origin.ask) as HttpResponse)).body
      assert.notEqual(after, before, method)
    }
  })

  test('one that fails, and a method that changes nothing, are not', async () => {
    await using world = new World()
    const origin = new TestOrigin((_, count) => fresh(String(count)))
    await read(world.cache.handle(get(), origin.ask))
    await read(world.cache.handle(get({}, { method: 'POST' }), () => ({ status: 500, headers: {} })))
    await read(world.cache.handle(get({}, { method: 'OPTIONS' }), () => ({ status: 200, headers: {} })))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, '1')
  })

  test('what Location and Content-Location name is forgotten too, on this host', async () => {
    await using world = new World()
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

describe('http cache, failures', () => {
  test('whoever asked the origin gets its very error, the others ask for themselves', async () => {
    await using world = new World({}, 2)
    const thrown = Object.assign(new Error('down'), { status: 503 })
    const gate = pDefer<never>()
    const origin = new TestOrigin((_, count) => (count === 1 ? gate.promise : fresh('whole')))
    const answers = [0, 0, 1].map(async (i) => (world.caches[i] as HttpCache).handle(get(), origin.ask))
    await until(() => origin.count > 0, { what: 'the origin to be asked' })
    gate.reject(thrown)
    const settled = await Promise.allSettled(answers)
    assert.equal(origin.count, 2)
    assert.deepEqual(
      settled.flatMap((result) => (result.status === 'rejected' ? [result.reason] : [])),
      [thrown],
    )
  })

  test('a body that breaks off, or is not as long as it says, is not kept', async () => {
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
      await using world = new World()
      const origin = new TestOrigin((_, count) => (count === 1 ? broken : fresh('whole')))
      await assert.rejects(async () => read(world.cache.handle(get(), origin.ask)))
      assert.equal((await read(world.cache.handle(get(), origin.ask))).body, 'whole')
    }
  })

  test('a body past the cap goes to its own client, whole, and nothing of it is kept', async () => {
    await using world = new World({ maxBody: 10 })
    const pieces = ['0123456', '789', 'abc', 'def']
    const bodies = [() => pieces.join(''), () => Readable.from(pieces)]
    for (const body of bodies) {
      const origin = new TestOrigin(() => fresh(body()))
      for (let i = 0; i < 2; i++)
        assert.equal((await read(world.cache.handle(get(), origin.ask))).body, pieces.join(''))
      assert.equal(origin.count, 2)
    }
  })

  test('the body of one alone is read at its pace, and let go when its client goes', async () => {
    await using world = new World()
    let made = 0
    const body = new Readable({
      highWaterMark: 1,
      read() {
        this.push(`${++made}`)
      },
    })
    const answer = await world.cache.handle(get(), () => fresh(body, { 'cache-control': 'private' }))
    const reader = (answer.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]()
    await reader.next()
    assert.ok(made < 5, `${made} pieces were made for one that was read`)
    await reader.return?.()
    assert.ok(body.destroyed, 'the source has ended')
    const unread = Readable.from(['x'])
    const other = await world.cache.handle(get({}, { url: '/b' }), () =>
      fresh(unread, { 'cache-control': 'private' }),
    )
    await (other.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]().return?.()
    assert.ok(unread.destroyed, 'also when nothing was read')
    const head = Readable.from(['x'])
    await world.cache.handle(get({}, { method: 'HEAD' }), () => fresh(head, { 'cache-control': 'private' }))
    assert.ok(head.destroyed, 'also when only the head was asked for')
  })

  test('a client that goes stops waiting, and the work goes on for the others', async () => {
    await using world = new World()
    const gate = pDefer<OriginResponse>()
    const origin = new TestOrigin(() => gate.promise)
    const gone = new AbortController()
    const first = world.cache.handle(get({}, { signal: gone.signal }), origin.ask)
    const second = world.cache.handle(get(), origin.ask)
    await until(() => origin.count > 0, { what: 'the origin to be asked' })
    gone.abort()
    await assert.rejects(first as Promise<HttpResponse>, { code: 'E_ABORTED' })
    gate.resolve(fresh('hello'))
    assert.equal((await read(second)).body, 'hello')
    assert.equal(origin.count, 1)
  })

  test('a private answer whose client has gone is let go', async () => {
    await using world = new World()
    const gate = pDefer<OriginResponse>()
    const origin = new TestOrigin(() => gate.promise)
    const body = Readable.from(['x'])
    const gone = new AbortController()
    const first = world.cache.handle(get({}, { signal: gone.signal }), origin.ask)
    await until(() => origin.count > 0, { what: 'the origin to be asked' })
    gone.abort()
    await assert.rejects(first as Promise<HttpResponse>)
    gate.resolve(fresh(body, { 'cache-control': 'private' }))
    await until(() => body.destroyed, { what: 'the body to be let go' })
  })

  test('whoever waits too long for another is told so', async () => {
    await using world = new World({ timeout: 20 })
    const gate = pDefer<OriginResponse>()
    const answer = await read(world.cache.handle(get(), () => gate.promise))
    assert.equal(answer.status, 504)
    gate.resolve(fresh('x'))
  })

  test('a function for tags that throws fails what needs them, and nothing else', async () => {
    let broken = false
    await using world = new World({
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
    await until(refreshed, { what: 'the refresh, which is tried again after a while' })
  })

  test('a key function that throws rejects', async () => {
    await using world = new World({
      key: () => {
        throw new Error('no key')
      },
    })
    await assert.rejects(async () => world.cache.handle(get(), () => fresh('x')), /no key/)
  })
})

describe('http cache, bodies that take their time', () => {
  /** A body that gives one piece at a time, when it is told to. */
  class Slow {
    readonly body = new Readable({ objectMode: true, read() {} })

    give(...pieces: string[]): void {
      for (const piece of pieces) this.body.push(piece)
    }

    end(): void {
      this.body.push(null)
    }
  }

  const pieces = (answer: HttpResponse): AsyncIterator<Uint8Array> =>
    (answer.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]()

  const next = async (reader: AsyncIterator<Uint8Array>): Promise<string | undefined> => {
    const { done, value } = await reader.next()
    return done ? undefined : value.toString()
  }

  test('whoever is first reads as it comes; the others wait for the whole', async () => {
    await using world = new World({}, 2)
    const slow = new Slow()
    const origin = new TestOrigin(() => fresh(slow.body, { 'x-a': 'b' }))
    const answers = [0, 0, 1].map((i) => world.caches[i]?.handle(get(), origin.ask))
    const first = await Promise.race(answers as Promise<HttpResponse>[])
    assert.deepEqual([first.status, fromRawHeaders(first.headers)['x-a']], [200, 'b'])
    const reader = pieces(first)
    slow.give('one ', 'two ')
    assert.equal(await next(reader), 'one ')
    slow.give('three')
    slow.end()
    assert.deepEqual(
      [await next(reader), await next(reader), await next(reader)],
      ['two ', 'three', undefined],
    )
    const hit = world.cache.handle(get(), origin.ask)
    assert.ok(!(hit instanceof Promise), 'it is kept when the end has come')
    const others = (await Promise.all(answers)).filter((answer) => answer !== first)
    for (const answer of [...others, hit]) assert.equal(answer?.body?.toString(), 'one two three')
    assert.equal(origin.count, 1)
  })

  test('pieces of text are as long as their bytes', async () => {
    await using world = new World()
    const origin = new TestOrigin(() => fresh(Readable.from(['äöü', 'ß!'])))
    await read(world.cache.handle(get(), origin.ask))
    const hit = await read(world.cache.handle(get(), origin.ask))
    assert.deepEqual([hit.body, hit.headers['content-length']], ['äöüß!', '9'])
  })

  test('nobody has the end of it before it is kept', async () => {
    for (const end of ['well', 'badly'] as const) {
      const slow = new Slow()
      const recording = new Recording(slow.body, undefined, new RecordingBudget(100))
      const collected = Promise.allSettled([recording.collect(100, () => undefined)])
      slow.give('a', 'b')
      const seen: string[] = []
      const reading = (async () => {
        for await (const piece of recording) seen.push(piece.toString())
      })()
      const read = Promise.allSettled([reading])
      if (end === 'well') slow.end()
      else slow.body.destroy(new Error('cut'))
      await collected
      // All that may happen has happened when a turn of the event loop has passed.
      await new Promise(setImmediate)
      const early = await Promise.race([read, 'not yet'])
      assert.deepEqual([early, seen], ['not yet', end === 'well' ? ['a'] : []])
      recording.deliverEnd()
      const [{ status }] = (await read) as [PromiseSettledResult<void>]
      assert.deepEqual([status, seen], end === 'well' ? ['fulfilled', ['a', 'b']] : ['rejected', []])
    }
  })

  test('a first reader that goes does not stop it for the others', async () => {
    await using world = new World()
    const slow = new Slow()
    const origin = new TestOrigin(() => fresh(slow.body))
    const answers = [0, 1].map(() => world.cache.handle(get(), origin.ask))
    const first = await Promise.race(answers as Promise<HttpResponse>[])
    await pieces(first).return?.()
    slow.give('hello')
    slow.end()
    const second = (await Promise.all(answers)).find((answer) => answer !== first)
    assert.equal(second?.body?.toString(), 'hello')
  })

  test('past the cap it is the first reader’s alone, and the others ask for themselves', async () => {
    await using world = new World({ maxBody: 5 })
    const slow = new Slow()
    const origin = new TestOrigin((_, count) => fresh(count === 1 ? slow.body : `own ${count}`))
    const answers = [0, 1].map(() => world.cache.handle(get(), origin.ask))
    const first = await Promise.race(answers as Promise<HttpResponse>[])
    const reader = pieces(first)
    slow.give('abcd', 'efgh')
    assert.deepEqual([await next(reader), await next(reader)], ['abcd', 'efgh'])
    const second = (await Promise.all(answers)).find((answer) => answer !== first)
    assert.equal((await read(second as HttpResponse)).body, 'own 2')
    slow.give('ijkl')
    slow.end()
    assert.deepEqual([await next(reader), await next(reader)], ['ijkl', undefined])
  })

  test('past the cap it is let go when its reader goes, or has gone', async () => {
    for (const early of [true, false]) {
      await using world = new World({ maxBody: 5 })
      const slow = new Slow()
      const reader = pieces(await world.cache.handle(get(), () => fresh(slow.body)))
      if (early) await reader.return?.()
      slow.give('abcdefgh')
      if (!early) {
        assert.equal(await next(reader), 'abcdefgh')
        await reader.return?.()
      }
      await until(() => slow.body.destroyed, { what: 'the body to be let go' })
    }
  })

  test('one that breaks off breaks off for its reader alone, and is not kept', async () => {
    await using world = new World()
    const slow = new Slow()
    const origin = new TestOrigin((_, count) => fresh(count === 1 ? slow.body : 'whole'))
    const answers = [0, 1].map(() => world.cache.handle(get(), origin.ask) as Promise<HttpResponse>)
    const settled = Promise.allSettled(answers)
    const reader = pieces(await Promise.race(answers))
    slow.give('a', 'b')
    assert.equal(await next(reader), 'a')
    slow.body.destroy(new Error('cut'))
    await assert.rejects(async () => {
      while ((await next(reader)) !== undefined);
    }, /cut/)
    assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, 'whole')
  })

  test('one that is shorter than it says breaks off too', async () => {
    await using world = new World()
    const slow = new Slow()
    const reader = pieces(await world.cache.handle(get(), () => fresh(slow.body, { 'content-length': '9' })))
    slow.give('short')
    slow.end()
    await assert.rejects(async () => {
      while ((await next(reader)) !== undefined);
    }, /9 bytes/)
  })
})

describe('http cache, fields of one client', () => {
  test('those that were its client\u2019s before count, but are not kept; and what is unshared is nobody else\u2019s', async () => {
    await using world = new World()
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
        const answer = await read(world.cache.handle(get({}, { url }), ask))
        assert.deepEqual([answer.body, answer.headers['x-own']], [body, 'a'], url)
      }
  })

  test('those that the response withholds from the shared answer', async () => {
    await using world = new World()
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
    await using small = new World({ maxBody: 0 })
    const alone = await read(small.cache.handle(get(), origin.ask))
    assert.equal(alone.headers['x-one'], '1')
  })
})
