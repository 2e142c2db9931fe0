// Hostile requests, responses and records: they do not split messages, poison the cache, or reach other clients.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, request as httpRequest, type Server } from 'node:http'
import { type AddressInfo, connect, createServer as createSocketServer } from 'node:net'
import { describe, test } from 'node:test'
import { Locker } from '../../src/index.ts'
import type { Codec } from '../../src/kernel/codec/codec.ts'
import { namespaceFor } from '../../src/locker/locker.ts'
import {
  fromRawHeaders,
  HttpCache,
  type HttpCacheOptions,
  type OriginResponse,
} from '../../src/memoize/index.ts'
import { primaryKeyOf } from '../../src/memoize/policy/request.ts'
import { fresh, get } from '../support/http-cache-scene.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

function cacheOf(options?: HttpCacheOptions): { cache: HttpCache; locker: Locker } {
  const locker = new Locker()
  return { cache: new HttpCache(locker, options), locker }
}

describe('http hostile, messages', () => {
  test('a response with a field that could split it is refused, and not stored', async () => {
    const { cache, locker } = cacheOf()
    await using _ = locker
    for (const headers of [
      { 'x-a': 'b\r\nset-cookie: c' },
      { 'x\r\na': 'b' },
      { 'x-a': ['b', 'c\nd'] },
      { 'x-a': '\0' },
    ]) {
      await assert.rejects(async () => cache.handle(get(), () => fresh('x', headers)), TypeError)
    }
    assert.equal((await cache.handle(get(), () => fresh('y'))).body?.toString(), 'y')
  })

  test('a request with such a field is refused before the origin is called', async () => {
    const { cache, locker } = cacheOf()
    await using _ = locker
    let asked = 0
    const origin = () => {
      asked++
      return fresh('x')
    }
    await assert.rejects(async () => cache.handle(get({ 'x-a': 'b\r\nc: d' }), origin))
    assert.equal(asked, 0)
  })

  test('a private response is not shared, however its directives are spelt', async () => {
    const { cache, locker } = cacheOf({ ttl: 60_000 })
    await using _ = locker
    const spellings = [
      { 'Cache-Control': 'NO-STORE' },
      { 'cache-control': 'max-age=60', 'Cache-Control': 'no-store' },
      { 'cache-control': ['max-age=60', ' private '] },
      { 'cache-control': 'x="a, b", , ,no-store' },
      { 'cache-control': 'x="never closed, no-store' },
      { 'Set-Cookie': 'a=b' },
      { VARY: ' * ' },
      { Vary: ['accept', 'a,*'] },
    ]
    for (const [i, headers] of spellings.entries()) {
      let count = 0
      for (let round = 0; round < 2; round++) {
        const answer = await cache.handle(get({}, { url: `/${i}` }), () => ({
          status: 200,
          headers,
          body: `${++count}`,
        }))
        if (round === 1) assert.equal(count, 2, JSON.stringify(headers))
        if (!Buffer.isBuffer(answer.body)) for await (const _ of answer.body ?? []);
      }
    }
  })

  test('thousands of fields, all named in Vary', async () => {
    const { cache, locker } = cacheOf()
    await using _ = locker
    const many = Object.fromEntries(Array.from({ length: 2_000 }, (_, i) => [`x-${i}`, `${i}`.repeat(20)]))
    const origin = () => fresh('x', { ...many, vary: Object.keys(many).join(', ') })
    await cache.handle(get(many), origin)
    const again = await cache.handle(get(many), () => assert.fail('asked again'))
    assert.ok(again.headers.length > 4_000, `${again.headers.length / 2} fields`)
    const other = await cache.handle(get({ ...many, 'x-1999': 'other' }), () => fresh('other'))
    assert.equal(other.body?.toString(), 'other')
  })

  test('GET with a body, unknown methods and unusual targets are forwarded', async () => {
    const { cache, locker } = cacheOf({ ttl: 60_000 })
    await using _ = locker
    const odd = [
      { ...get({ 'content-length': '5' }) },
      { ...get({ 'transfer-encoding': 'chunked' }) },
      { ...get(), method: 'get' },
      { ...get(), method: 'PURGE' },
      { ...get(), url: '*' },
      { ...get(), url: '' },
      { ...get(), url: 'http://other/page' },
      { ...get({ host: ['example.org', 'other'] }) },
      { ...get({ 'if-match': '"a"' }) },
    ]
    for (const request of odd) {
      let asked = 0
      for (let i = 0; i < 2; i++) await cache.handle(request, () => fresh(`${++asked}`))
      assert.equal(asked, 2, JSON.stringify(request))
    }
  })
})

describe('http hostile, records', () => {
  const raw: Codec = { encode: (value) => value as Buffer, decode: (bytes) => bytes }
  const framed = (head: unknown, body = ''): Buffer => {
    const bytes = Buffer.from(JSON.stringify(head))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(bytes.length)
    return Buffer.concat([length, bytes, Buffer.from(body)])
  }
  const plan = {
    age: 0,
    lifetime: 60_000,
    keep: 60_000,
    whileRevalidate: 0,
    ifError: 0,
    onDemand: 0,
    collapse: false,
  }
  const response = { kind: 'response', status: 200, fields: [], plan, authorized: false }

  test('a record that the cache did not write is not served, and is replaced', async () => {
    await using t = await setup()
    await using locker = new Locker({ redis: t.redis, cache: false })
    const cache = new HttpCache(locker)
    const forger = namespaceFor<Buffer>(locker, 'w', raw)
    const forgeries = [
      Buffer.from(''),
      Buffer.from('\xff\xff\xff\xff{}'),
      framed(null),
      framed({ kind: 'index' }),
      framed({ kind: 'index', index: { names: 'x', id: 1 } }),
      framed({ ...response, status: 99 }),
      framed({ ...response, plan: { ...plan, lifetime: 'x' } }),
      framed({ ...response, plan: undefined }),
      framed({ ...response, fields: ['x-a', 'b\r\nset-cookie: c'] }, 'forged'),
      framed({ ...response, fields: ['x\na', 'b'] }, 'forged'),
    ]
    for (const [i, forged] of forgeries.entries()) {
      const request = get({}, { url: `/${i}` })
      const key = primaryKeyOf(request, { key: undefined }) as string
      assert.ok(await forger.setIfUnclaimed(key, forged, { ttl: 60_000 }), 'it is kept')
      const answer = await cache.handle(request, () => fresh('true'))
      const body = Buffer.isBuffer(answer.body) ? answer.body.toString() : undefined
      assert.equal(body, 'true', forged.toString('latin1'))
    }
    // The counterpart: a well-formed record is served.
    const request = get({}, { url: '/good' })
    await forger.setIfUnclaimed(
      primaryKeyOf(request, { key: undefined }) as string,
      framed(response, 'kept'),
      {
        ttl: 60_000,
      },
    )
    assert.equal((await cache.handle(request, () => fresh('x'))).body?.toString(), 'kept')
  })
})

describe('http hostile, Redis away', () => {
  test('handlers run once in each process, up to maxUnshared; further requests get a 503', async () => {
    await using t = await setup()
    await using locker = new Locker({ redis: t.redis, unavailableAfter: 300 })
    const cache = new HttpCache(locker, { maxUnshared: 2 })
    await cache.handle(get({}, { url: '/warm' }), () => fresh('x'))
    await t.server.kill('SIGKILL')
    let open = () => {}
    const gate = new Promise<void>((resolve) => {
      open = resolve
    })
    let asked = 0
    const origin = async () => {
      asked++
      await gate
      return fresh('local')
    }
    const same = Array.from({ length: 20 }, () => cache.handle(get(), origin))
    await until(() => asked === 1, { what: 'the origin to be called', timeout: 5_000 })
    const second = cache.handle(get({}, { url: '/2' }), origin)
    await until(() => asked === 2, { what: 'the second to run', timeout: 5_000 })
    const third = await cache.handle(get({}, { url: '/3' }), origin)
    assert.equal(third.status, 503)
    assert.equal(fromRawHeaders(third.headers)['retry-after'], '1')
    open()
    for (const answer of await Promise.all([...same, second])) assert.equal(answer.body?.toString(), 'local')
    assert.equal(asked, 2)
  })

  test("with onUnavailable 'fail' requests get a 503", async () => {
    await using t = await setup()
    await using locker = new Locker({ redis: t.redis, unavailableAfter: 300 })
    const cache = new HttpCache(locker, { onUnavailable: 'fail' })
    await cache.handle(get({}, { url: '/warm' }), () => fresh('x'))
    await t.server.kill('SIGKILL')
    assert.equal((await cache.handle(get(), () => fresh('x'))).status, 503)
    assert.equal((await cache.handle(get({}, { url: '/warm' }), () => fresh('x'))).status, 503)
  })
})

describe('http hostile, over sockets', () => {
  /** A server with the cache, in front of an origin that writes these bytes and closes. */
  async function behind(bytes: string[]): Promise<{ port: number; asked: () => number } & AsyncDisposable> {
    let asked = 0
    const origin = createSocketServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => socket.end(bytes[Math.min(asked++, bytes.length - 1)] ?? '', 'latin1'))
    }).listen(0, '127.0.0.1')
    await once(origin, 'listening')
    const locker = new Locker()
    const cache = new HttpCache(locker)
    const server = await serve(cache, (origin.address() as AddressInfo).port)
    return {
      port: (server.address() as AddressInfo).port,
      asked: () => asked,
      async [Symbol.asyncDispose]() {
        server.close()
        server.closeAllConnections()
        origin.close()
        await locker.close({ grace: 0 })
      },
    }
  }

  async function serve(cache: HttpCache, port: number): Promise<Server> {
    const server = createServer(async (incoming, outgoing) => {
      try {
        const request = {
          method: incoming.method ?? '',
          url: incoming.url ?? '',
          headers: fromRawHeaders(incoming.rawHeaders),
        }
        const answer = await cache.handle(request, (asked) => {
          const upstream = httpRequest({
            port,
            method: asked.method,
            path: asked.url,
            headers: { ...asked.headers },
          })
          upstream.end()
          return new Promise<OriginResponse>((resolve, reject) => {
            upstream.on('error', reject)
            upstream.on('response', (body) =>
              resolve({ status: body.statusCode ?? 0, headers: fromRawHeaders(body.rawHeaders), body }),
            )
          })
        })
        outgoing.writeHead(answer.status, answer.headers)
        if (!Buffer.isBuffer(answer.body)) for await (const chunk of answer.body ?? []) outgoing.write(chunk)
        outgoing.end(Buffer.isBuffer(answer.body) ? answer.body : undefined)
      } catch {
        if (outgoing.headersSent) outgoing.destroy()
        else outgoing.writeHead(502).end()
      }
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return server
  }

  /** All bytes that the server sends. */
  async function say(port: number, text: string): Promise<string> {
    const socket = connect(port, '127.0.0.1')
    socket.write(text)
    let said = ''
    for await (const chunk of socket.setEncoding('latin1')) said += chunk
    return said
  }

  const get = (method = 'GET') => `${method} / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`
  const whole = 'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\nX-A: \xfc\r\n\r\nwhole'

  test('a truncated response is not stored', async () => {
    const short = [
      'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 50\r\n\r\nshort',
      'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n',
      'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConte',
      '',
    ]
    for (const cut of short) {
      await using world = await behind([cut, whole])
      assert.match(await say(world.port, get()), /^HTTP\/1\.1 502 /, cut)
      assert.match(await say(world.port, get()), /^HTTP\/1\.1 200 [\s\S]*whole$/, cut)
      assert.match(await say(world.port, get()), /^HTTP\/1\.1 200 [\s\S]*x-a: \xfc[\s\S]*hit[\s\S]*whole$/)
      assert.equal(world.asked(), 2)
    }
  })

  test('hop-by-hop fields are neither stored nor forwarded', async () => {
    const bytes = (control: string) =>
      `HTTP/1.1 200 OK\r\nCache-Control: ${control}\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n`
    for (const [control, method, asked] of [
      ['max-age=60', 'GET', 1],
      ['private', 'GET', 2],
      ['max-age=60', 'POST', 2],
    ] as const) {
      await using world = await behind([bytes(control)])
      for (let i = 0; i < 2; i++) {
        const answer = (await say(world.port, get(method))).toLowerCase()
        assert.doesNotMatch(answer, /x-hop|timeout=9|proxy-authenticate/)
        assert.match(answer, /\r\nab(\r\n0\r\n\r\n)?$/)
      }
      assert.equal(world.asked(), asked)
    }
  })
})
