// memoizeHandler on node:http: real servers, and clients over loopback.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { Locker } from '../../src/index.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { HttpWorld, onBoth, type Received, received, type Served } from '../support/http-scene.ts'
import { LOCALHOST } from '../support/ports.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000
const FRESH = { 'cache-control': 'max-age=60' }

/** Who counts how often he was asked, and answers with that. */
function counter(headers: Record<string, string> = FRESH) {
  const handler = (_request: IncomingMessage, response: ServerResponse): void => {
    handler.count++
    response.writeHead(200, headers).end(`answer ${handler.count}`)
  }
  handler.count = 0
  return handler
}

describe('memoize node, what is shared', () => {
  onBoth('memoize node - a crowd at two servers has the handler run once', async (world) => {
    const gate = pDefer<void>()
    let runs = 0
    const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      await gate.promise
      response.writeHead(201, 'Made', { ...FRESH, 'X-Made': ['a', 'b'], 'content-type': 'text/plain' })
      response.end('made once')
    }
    const servers = await Promise.all(
      [world.locker(), world.locker()].map((locker) => world.serve(memoizeHandler(locker, {}, handler))),
    )
    const headers = { host: 'one.example' }
    const crowd = Array.from({ length: 60 }, (_, i) => servers[i % 2]?.ask('/page', { headers }))
    await until(() => runs > 0, { what: 'the handler to run' })
    gate.resolve()
    for (const answer of await Promise.all(crowd)) {
      assert.deepEqual([answer?.status, answer?.statusText, answer?.text], [201, 'Made', 'made once'])
      assert.deepEqual(
        [answer?.headers['x-made'], answer?.headers['content-type'], answer?.headers['content-length']],
        ['a, b', 'text/plain', '9'],
      )
    }
    assert.equal(runs, 1)
  })

  onBoth(
    'memoize node - a streamed binary body reaches all byte for byte, and from then on is whole',
    async (world) => {
      const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 31) & 255))
      const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
        response.writeHead(200, FRESH)
        await pipeline(
          Readable.from([bytes.subarray(0, 7), bytes.subarray(7, 200_000), bytes.subarray(200_000)]),
          response,
        )
      }
      const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
      const answers = await Promise.all(Array.from({ length: 5 }, () => server.ask('/')))
      for (const { bytes: received } of [...answers, await server.ask('/')])
        assert.ok(received.equals(bytes), 'the bytes')
      const hit = await server.ask('/')
      assert.equal(hit.headers['content-length'], '300000')
      assert.match(String(hit.headers['cache-status']), /hit/)
    },
  )

  test('memoize node - every way of writing gives what the bare handler gives', async () => {
    await using world = new HttpWorld()
    const ways: Record<string, (response: ServerResponse, request: IncomingMessage) => unknown> = {
      end: (res) => res.end('x'),
      'end in latin1': (res) => res.end('caf\u00e9', 'latin1'),
      'end in hex': (res) => res.end('00ff10', 'hex'),
      'end with a Uint8Array': (res) => res.end(new Uint8Array([1, 2, 3])),
      'write in several encodings': (res) => {
        res.write('6162', 'hex')
        res.write('caf\u00e9')
        res.write(Buffer.from([0, 255]))
        res.end('eA==', 'base64')
      },
      'set, append, remove': (res) => {
        res.setHeader('x-a', ['1', '2'])
        res.appendHeader('x-a', '3')
        res.setHeader('X-B', 4)
        res.removeHeader('x-b')
        res.setHeaders(new Map([['x-c', '5']]))
        res.statusCode = 404
        res.statusMessage = 'Nothing here'
        res.end('none')
      },
      'writeHead with an object': (res) =>
        res.writeHead(202, 'Later', { 'x-a': ['1', '2'], 'x-b': 3 }).end('x'),
      'writeHead with an array': (res) => res.writeHead(200, ['x-a', '1', 'x-a', '2']).end('x'),
      'writeHead over setHeader': (res) => res.setHeader('x-a', '1').writeHead(200, { 'x-a': '2' }).end('x'),
      'its own length': (res) => res.writeHead(200, { 'content-length': '2' }).end('xy'),
      'its own coding': (res) => res.writeHead(200, { 'transfer-encoding': 'chunked' }).end('xy'),
      'no body': (res) => res.writeHead(204).end(),
      'flushed head, corked pieces': async (res) => {
        res.flushHeaders()
        res.cork()
        res.write('a')
        res.write('b', () => res.end('c'))
        res.uncork()
      },
      trailers: (res) => {
        res.writeHead(200, { trailer: 'x-sum' })
        res.write('body')
        res.addTrailers({ 'x-sum': '1' })
        res.end()
      },
      'early hints': (res) => {
        res.writeEarlyHints({ link: '</a.css>; rel=preload' })
        res.writeProcessing()
        res.end('late')
      },
      'a pipe': (res) => Readable.from(['a', 'b', 'c']).pipe(res),
      'the end of the request awaited': async (res, req) => {
        for await (const _ of req) assert.fail('there is no body')
        res.end('read')
      },
      'obs-text': (res) => res.setHeader('x-a', 'caf\u00e9').end('x'),
    }
    const handler = (request: IncomingMessage, response: ServerResponse): unknown => {
      response.setHeader('date', 'Sat, 21 Nov 2026 10:00:00 GMT')
      return ways[decodeURIComponent((request.url ?? '').slice(1))]?.(response, request)
    }
    const bare = await world.serve(handler)
    const memoized = await world.serve(memoizeHandler(world.locker(), { ttl: HOUR, errorTtl: HOUR }, handler))
    const OWN = [
      'connection',
      'keep-alive',
      'cache-status',
      'age',
      'content-length',
      'transfer-encoding',
      'trailer',
    ]
    for (const way of Object.keys(ways)) {
      const path = `/${encodeURIComponent(way)}`
      const seen = async (from: typeof bare) => {
        const { status, statusText, headers, bytes } = await from.ask(path)
        for (const name of OWN) delete headers[name]
        return { status, statusText, headers, bytes: bytes.toString('hex') }
      }
      const expected = await seen(bare)
      assert.deepEqual(await seen(memoized), expected, way)
      assert.deepEqual(await seen(memoized), expected, `${way}, out of the cache`)
    }
  })

  test('memoize node - HEAD, Range and conditions are answered out of one GET', async () => {
    await using world = new HttpWorld()
    const seen: unknown[] = []
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      seen.push([request.method, request.headers['if-none-match'], request.headers.range])
      response.writeHead(200, { ...FRESH, etag: '"a"' }).end('0123456789')
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    const head = await server.ask('/', { method: 'HEAD', headers: { 'if-none-match': '"b"' } })
    assert.deepEqual([head.status, head.text, head.headers['content-length']], [200, '', '10'])
    const same = await server.ask('/', { headers: { 'if-none-match': '"a"' } })
    assert.deepEqual([same.status, same.text, same.headers.etag], [304, '', '"a"'])
    const part = await server.ask('/', { headers: { range: 'bytes=2-4' } })
    assert.deepEqual([part.status, part.text, part.headers['content-range']], [206, '234', 'bytes 2-4/10'])
    const beyond = await server.ask('/', { headers: { range: 'bytes=20-' } })
    assert.deepEqual([beyond.status, beyond.headers['content-range']], [416, 'bytes */10'])
    assert.equal((await server.ask('/')).text, '0123456789')
    assert.deepEqual(seen, [['GET', undefined, undefined]])
  })

  test('memoize node - by Vary every client has the answer that is for it', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      runs++
      response.writeHead(200, { ...FRESH, vary: 'Accept-Language' }).end(request.headers['accept-language'])
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    for (let round = 0; round < 2; round++) {
      const languages = ['de', 'en', 'fr', 'de', 'en', 'fr']
      const answers = await Promise.all(
        languages.map((language) => server.ask('/', { headers: { 'accept-language': language } })),
      )
      assert.deepEqual(
        answers.map(({ text }) => text),
        languages,
      )
    }
    assert.ok(runs <= 4, `${runs} runs for three languages`)
  })

  test('memoize node - a method with a body is shared by a key that holds the body', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      response.writeHead(200, FRESH).end(`${request.method} ${Buffer.concat(chunks)}`)
    }
    const options = {
      methods: ['POST'],
      key: ({ incoming }: { incoming?: IncomingMessage | undefined }) =>
        incoming?.headers['x-digest'] as string,
    }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    const big = 'x'.repeat(500_000)
    const post = (body: string, digest: string, headers = {}) =>
      server.ask('/', { method: 'POST', body, headers: { 'x-digest': digest, ...headers } })
    assert.equal((await post('one', '1')).text, 'POST one')
    assert.equal((await post('one', '1')).text, 'POST one')
    assert.equal((await post('two', '2', { 'transfer-encoding': 'chunked' })).text, 'POST two')
    assert.equal((await post(big, '3')).text, `POST ${big}`)
    assert.equal(runs, 3)
  })
})

describe('memoize node, what is for one client', () => {
  onBoth(
    'memoize node - cookies, Set-Cookie, private and no-store are never another client\u2019s',
    async (world) => {
      const handler = (request: IncomingMessage, response: ServerResponse): void => {
        const { pathname, searchParams } = new URL(request.url ?? '', 'http://x')
        const who = request.headers.cookie ?? request.headers['x-who'] ?? searchParams.get('who')
        if (pathname === '/set') response.setHeader('set-cookie', [`a=${who}`, `b=${who}`])
        if (pathname === '/private') response.setHeader('cache-control', 'private, max-age=60')
        if (pathname === '/no-store') response.setHeader('cache-control', 'no-store')
        setImmediate(() => response.end(`for ${who}`))
      }
      const open = (): Promise<Served> => world.serve(memoizeHandler(world.locker(), { ttl: HOUR }, handler))
      const servers = await Promise.all([open(), open()])
      const clients = Array.from({ length: 40 }, (_, i) => `client-${i}`)
      for (const [path, field] of [
        ['/page', 'cookie'],
        ['/set', 'x-who'],
        ['/private', 'x-who'],
        ['/no-store', 'x-who'],
        ['/page', 'authorization'],
      ] as const) {
        const asked = clients.map(async (who, i) => {
          const server = servers[i % 2] ?? assert.fail('there are two')
          const headers = {
            host: 'one.example',
            [field]: who,
            ...(field === 'authorization' && { 'x-who': who }),
          }
          const { text, headers: got } = await server.ask(path, { headers })
          assert.equal(text, `for ${who}`, `${path} by ${field}`)
          if (path === '/set') assert.deepEqual(got['set-cookie'], [`a=${who}`, `b=${who}`])
        })
        await Promise.all(asked)
      }
    },
  )

  test('memoize node - what one with credentials had made is for all where it says so', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      runs++
      const control = request.url === '/public' ? 'public, max-age=60' : 'max-age=60'
      response.writeHead(200, { 'cache-control': control }).end(`${request.headers.authorization} ${runs}`)
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    const texts = async (path: string) => [
      (await server.ask(path, { headers: { authorization: 'a' } })).text,
      (await server.ask(path, { headers: { authorization: 'b' } })).text,
      (await server.ask(path)).text,
    ]
    assert.deepEqual(await texts('/public'), ['a 1', 'a 1', 'a 1'])
    assert.deepEqual(await texts('/page'), ['a 2', 'b 3', 'undefined 4'])
  })

  test('memoize node - what changes something is answered when the old is forgotten everywhere', async () => {
    await using world = await HttpWorld.onRedis()
    let value = 1
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      if (request.method === 'GET') response.writeHead(200, FRESH).end(`${request.url} ${value}`)
      else {
        value++
        // Its head and half of its body go out before it ends.
        response.writeHead(201, { location: '/other', 'content-type': 'text/plain' })
        response.write('do')
        setImmediate(() => response.end('ne', 'utf8'))
      }
    }
    const open = (): Promise<Served> => world.serve(memoizeHandler(world.locker(), {}, handler))
    const [one, two] = await Promise.all([open(), open()])
    const headers = { host: 'one.example' }
    for (const path of ['/page', '/other']) {
      for (const server of [one, two])
        assert.equal((await server.ask(path, { headers })).text, `${path} ${value}`)
    }
    for (let round = 0; round < 10; round++) {
      const made: Received = await one.ask('/page', { method: 'POST', headers, body: 'x' })
      assert.deepEqual([made.status, made.text, made.headers['content-type']], [201, 'done', 'text/plain'])
      for (const path of ['/page', '/other'])
        assert.equal((await one.ask(path, { headers })).text, `${path} ${value}`, `after ${value}`)
    }
    await until(async () => (await two.ask('/page', { headers })).text === `/page ${value}`, {
      what: 'the other',
    })
  })

  test('memoize node - bodies, Expect and odd methods reach the handler as they are', async () => {
    await using world = new HttpWorld()
    const handler = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      let text = ''
      for await (const chunk of request) text += chunk
      response.end(`${request.method} ${text}`)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: HOUR }, handler))
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'QUERY'])
      assert.equal(
        (await server.ask('/', { method, body: 'body', headers: { 'content-length': 4 } })).text,
        `${method} body`,
      )
    const chunked = { 'transfer-encoding': 'chunked' }
    assert.equal((await server.ask('/', { method: 'GET', body: 'body', headers: chunked })).text, 'GET body')
    const expecting =
      'POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody'
    assert.match(
      await server.raw(expecting),
      /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK[\s\S]*POST body/,
    )
    const upgrading = 'GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: nothing\r\n\r\n'
    assert.match(await server.raw(upgrading), /200 OK[\s\S]*GET /)
  })

  test('memoize node - HTTP/1.0, pipelined requests and broken ones', async () => {
    await using world = new HttpWorld()
    const server = await world.serve(
      memoizeHandler(world.locker(), { ttl: HOUR }, (request, response) => {
        setTimeout(
          () => response.end(`<${request.url} ${request.httpVersion}>`),
          request.url === '/slow' ? 50 : 0,
        )
      }),
    )
    const old = await server.raw('GET /old HTTP/1.0\r\n\r\n')
    assert.match(old, /^HTTP\/1\.1 200 OK\r\n[\s\S]*<\/old 1\.1>$/)
    const line = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nhost: x\r\n${more}\r\n`
    await server.ask('/hit', { headers: { host: 'x' } })
    const pipelined = await server.raw(
      line('/slow') + line('/hit') + line('/new') + line('/end', 'connection: close\r\n'),
    )
    assert.deepEqual(pipelined.match(/<.*?>/g), ['</slow 1.1>', '</hit 1.1>', '</new 1.1>', '</end 1.1>'])
    for (const broken of [
      'GET / HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n',
      'nonsense\r\n\r\n',
      'GET /\r\nx HTTP/1.1\r\n\r\n',
    ])
      assert.match(await server.raw(broken), /^HTTP\/1\.1 400 /)
    const two = await server.raw('GET /two HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\n\r\n')
    assert.doesNotMatch(two, /stored/, 'of two hosts nobody knows which')
  })
})

describe('memoize node, failures', () => {
  test('memoize node - a handler that throws: 500 to its own client, told, and run for the others', async () => {
    await using world = new HttpWorld()
    const told: unknown[] = []
    let [runs, requests] = [0, 0]
    const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      await until(() => requests >= 5, { what: 'the whole crowd' })
      if (runs === 1) throw new Error('no database')
      response.end('fine')
    }
    const options = { onError: (error: unknown) => told.push(String(error)) }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    server.server.on('request', () => requests++)
    const crowd = await Promise.all(Array.from({ length: 5 }, () => server.ask('/')))
    const failed = crowd.filter(({ status }) => status === 500)
    assert.equal(failed.length, 1)
    assert.ok(!failed[0]?.text.includes('database'), 'nothing of the reason leaves')
    assert.deepEqual(told, ['Error: no database'])
    assert.equal(crowd.filter(({ text }) => text === 'fine').length, 4)
    assert.equal(runs, 2)
  })

  test('memoize node - a response that breaks off breaks off for its client too, and is not kept', async () => {
    await using world = new HttpWorld()
    let breaks = true
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      response.writeHead(200, { ...FRESH, ...(request.url === '/long' && { 'content-length': '100' }) })
      response.write('half')
      if (!breaks || request.url === '/short') response.end(breaks ? undefined : 'whole'.padEnd(96))
      else setTimeout(() => response.destroy(), 20)
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    for (const path of ['/', '/long'])
      await assert.doesNotReject(async () => {
        const { status, text } = await server.ask(path).catch(() => ({ status: 0, text: '' }))
        assert.ok(status === 500 || (status === 0 && text === ''), `${status} ${text}`)
      })
    breaks = false
    for (const path of ['/', '/long']) assert.equal((await server.ask(path)).text.trim(), 'halfwhole')
  })

  test('memoize node - a handler that never ends: 504 in time, while others are served', async () => {
    await using world = new HttpWorld()
    const pending: ServerResponse[] = []
    const options = { timeout: 100, onError: assert.fail }
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      if (request.url === '/never') pending.push(response)
      else response.end('other')
    }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    const crowd = Array.from({ length: 4 }, () => server.ask('/never'))
    assert.equal((await server.ask('/')).text, 'other')
    for (const { status } of await Promise.all(crowd)) assert.equal(status, 504)
    assert.equal(pending.length, 1)
    // Too late: it is not waited for any more, and the next may try.
    pending[0]?.writeHead(200, FRESH).end('too late')
    const next = server.ask('/never')
    await until(() => pending.length === 2, { what: 'the handler to run once more' })
    pending[1]?.writeHead(200, FRESH).end('at last')
    assert.equal((await next).text, 'at last')
  })

  onBoth('memoize node - a client that hangs up takes nothing from the others', async (world) => {
    const gate = pDefer<void>()
    const events: string[] = []
    let runs = 0
    const handler = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      request.on('aborted', () => events.push('aborted'))
      response.on('close', () => events.push(response.writableFinished ? 'closed' : 'cut short'))
      response.writeHead(200, FRESH)
      async function* pieces() {
        yield 'first '
        await gate.promise
        yield 'second'
      }
      // Ends what it reads when the response is closed.
      await pipeline(Readable.from(pieces()), response)
    }
    const locker = world.locker()
    const server = await world.serve(memoizeHandler(locker, {}, handler))
    const first = connect(server.port, LOCALHOST)
    first.write(`GET /page HTTP/1.1\r\nhost: ${LOCALHOST}:${server.port}\r\n\r\n`)
    await until(() => runs === 1, { what: 'the handler to run' })
    const others = Array.from({ length: 5 }, () => server.ask('/page'))
    await until(() => locker.stats().waiters === 6, { what: 'all to wait' })
    first.destroy()
    await once(first, 'close')
    await until(async () => (await server.connections()) === 5, { what: 'the first to be gone' })
    gate.resolve()
    for (const { status, text } of await Promise.all(others))
      assert.deepEqual([status, text], [200, 'first second'])
    assert.equal(runs, 1)
    await until(() => events.length > 0, { what: 'the handler\u2019s response to close' })
    assert.deepEqual(events, ['closed'])
  })

  test('memoize node - a client that leaves what is for it alone ends the handler\u2019s work', async () => {
    await using world = new HttpWorld()
    let closed = 0
    let written = 0
    let late: (() => void) | undefined
    const handler = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      response.on('close', () => closed++)
      if (request.url === '/late') {
        await new Promise<void>((resolve) => {
          late = resolve
        })
      }
      response.writeHead(200, { 'cache-control': 'private' })
      async function* endless() {
        for (;;) {
          written++
          yield Buffer.alloc(64 * 1024)
          // Says nothing more until somebody wants it to.
          if (request.url === '/quiet') await once(response, 'close')
        }
      }
      await pipeline(Readable.from(endless()), response).catch(() => undefined)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: HOUR }, handler))
    for (const [i, path] of ['/', '/quiet'].entries()) {
      const response = await server.begin(path)
      response.destroy()
      await until(() => closed === i + 1, { what: `the handler of ${path} to be told` })
      const before = written
      await new Promise((resolve) => setImmediate(resolve))
      assert.equal(written, before)
    }
    // Who leaves before there is an answer.
    const early = connect(server.port, LOCALHOST)
    early.write('GET /late HTTP/1.1\r\nhost: x\r\n\r\n')
    await until(() => late !== undefined, { what: 'the handler to run' })
    early.destroy()
    await until(async () => (await server.connections()) === 0, { what: 'the client to be gone' })
    late?.()
    await until(() => closed === 3, { what: 'the late one to be told' })
  })

  test('memoize node - with the locker closed the handler answers alone', async () => {
    await using world = new HttpWorld()
    const locker = new Locker()
    const handler = counter()
    const server = await world.serve(memoizeHandler(locker, {}, handler))
    assert.equal((await server.ask('/')).text, 'answer 1')
    await locker.close()
    assert.deepEqual([(await server.ask('/')).text, (await server.ask('/')).text], ['answer 2', 'answer 3'])
  })
})

describe('memoize node, limits', () => {
  test('memoize node - a body past maxBody goes to its client at its pace, and is not kept', async () => {
    await using world = new HttpWorld()
    const TOTAL = 64 * 1024 * 1024
    const piece = Buffer.alloc(64 * 1024, 'x')
    let written = 0
    let runs = 0
    const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      written = 0
      response.writeHead(200, FRESH)
      async function* pieces() {
        for (; written < TOTAL; written += piece.length) yield piece
      }
      await pipeline(Readable.from(pieces()), response)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { maxBody: 1024 * 1024 }, handler))
    const response = await server.begin('/')
    response.pause()
    // Until nothing moves any more: all buffers on the way are full.
    let last = 0
    const heldUp = (): boolean => {
      const before = last
      last = written
      return before > 0 && before === written
    }
    await until(heldUp, { what: 'the writer to be held up', every: 100 })
    assert.ok(written < 24 * 1024 * 1024, `${written} bytes wait in memory for a client that does not read`)
    assert.equal((await received(response)).bytes.length, TOTAL)
    assert.equal((await server.ask('/')).bytes.length, TOTAL)
    assert.equal(runs, 2)
  })

  test('memoize node - while Redis is away the handler runs once per process, and no more than so many', async () => {
    await using world = await HttpWorld.onRedis()
    const locker = world.locker({ unavailableAfter: 200 })
    const gates = new Map<string, ServerResponse[]>()
    let runs = 0
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      runs++
      const path = request.url ?? ''
      gates.set(path, [...(gates.get(path) ?? []), response])
    }
    const server = await world.serve(memoizeHandler(locker, { maxUnshared: 2 }, handler))
    await world.t.server.kill()
    const same = [server.ask('/1'), server.ask('/1'), server.ask('/1')]
    await until(() => runs === 1, { what: 'the first' })
    const other = server.ask('/2')
    await until(() => runs === 2, { what: 'the second' })
    const refused = await server.ask('/3')
    assert.deepEqual([refused.status, refused.headers['retry-after']], [503, '1'])
    for (const [path, responses] of gates) for (const response of responses) response.end(`answer ${path}`)
    for (const { status, text } of await Promise.all(same))
      assert.deepEqual([status, text], [200, 'answer /1'])
    assert.equal((await other).text, 'answer /2')
    assert.equal(runs, 2)
  })

  test('memoize node - with onUnavailable fail it is 503', async () => {
    await using world = await HttpWorld.onRedis()
    const handler = counter()
    const options = { onUnavailable: 'fail' } as const
    const server = await world.serve(
      memoizeHandler(world.locker({ unavailableAfter: 200 }), options, handler),
    )
    await world.t.server.kill()
    const { status, headers } = await server.ask('/')
    assert.deepEqual([status, headers['retry-after']], [503, '1'])
    assert.equal(handler.count, 0)
  })

  test('memoize node - options and the handler are checked', () => {
    const locker = new Locker()
    for (const bad of [{ ttl: -1 }, { methods: ['POST'] }, { unknown: 1 }, { onError: 1 }, { maxBody: '1' }])
      assert.throws(() => memoizeHandler(locker, bad as never), TypeError, JSON.stringify(bad))
    assert.throws(() => memoizeHandler(locker, {}, 'handler' as never), TypeError)
    return locker.close()
  })
})

describe('memoize node, stale', () => {
  test('memoize node - what is stale is served at once while one request renews it', async () => {
    await using world = new HttpWorld()
    const runs: ServerResponse[] = []
    const answer = (response: ServerResponse | undefined): void => {
      const headers = { 'cache-control': 'max-age=1, stale-while-revalidate=60', age: '1' }
      response?.writeHead(200, headers).end(`answer ${runs.length}`)
    }
    const server = await world.serve(
      memoizeHandler(world.locker(), {}, (_, response) => {
        if (runs.push(response) === 1) answer(response)
      }),
    )
    assert.equal((await server.ask('/')).text, 'answer 1')
    const crowd = await Promise.all(Array.from({ length: 20 }, () => server.ask('/')))
    for (const { text } of crowd) assert.equal(text, 'answer 1')
    await until(() => runs.length > 1, { what: 'the refresh' })
    assert.equal(runs.length, 2)
    answer(runs[1])
    await until(async () => (await server.ask('/')).text === 'answer 2', { what: 'the renewed answer' })
  })

  test('memoize node - it stays when the handler fails', async () => {
    await using world = new HttpWorld()
    let fails = false
    const told: unknown[] = []
    const handler = (_: IncomingMessage, response: ServerResponse): void => {
      if (fails) throw new Error('down')
      response.writeHead(200, { 'cache-control': 'max-age=1, stale-if-error=60', age: '1' }).end('good')
    }
    const options = { onError: (error: unknown) => told.push(error) }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    assert.equal((await server.ask('/')).text, 'good')
    fails = true
    assert.deepEqual([(await server.ask('/')).text, told.length], ['good', 1])
  })

  test('memoize node - fields set before the cache are kept, those of the answer win', async () => {
    await using world = new HttpWorld()
    let clients = 0
    const handler = memoizeHandler(world.locker(), {}, (_, response) => {
      response.writeHead(200, { ...FRESH, 'x-both': 'stored', link: ['<a>', '<b>'] }).end('x')
    })
    const server = await world.serve((request, response) => {
      response.setHeader('x-both', 'client')
      response.setHeader('X-Client', ++clients)
      response.setHeader('set-cookie', `id=${clients}`)
      handler(request, response)
    })
    for (let client = 1; client <= 3; client++) {
      const { headers } = await server.ask('/')
      assert.deepEqual(
        [headers['x-both'], headers['x-client'], headers['set-cookie'], headers['link']],
        ['stored', `${client}`, [`id=${client}`], '<a>, <b>'],
      )
    }
  })

  test('memoize node - a writeHead of somebody before the cache is used, and what it refuses is 500', async () => {
    await using world = new HttpWorld()
    const handler = memoizeHandler(world.locker(), {}, (_, response) => {
      response.writeHead(200, FRESH).end('x')
    })
    let refuses = false
    const server = await world.serve((request, response) => {
      const { writeHead } = response
      response.writeHead = ((status: number, ...rest: unknown[]) => {
        if (refuses && status === 200) throw new TypeError('refused')
        assert.ok(!rest.some(Array.isArray), 'it need not know fields in this form')
        response.setHeader('x-before', 'seen')
        return writeHead.apply(response, [status, ...rest] as never)
      }) as typeof writeHead
      handler(request, response)
    })
    for (let i = 0; i < 2; i++) {
      const { headers } = await server.ask('/')
      assert.deepEqual([headers['x-before'], headers['cache-control']], ['seen', FRESH['cache-control']])
    }
    refuses = true
    assert.deepEqual([(await server.ask('/')).status, (await server.ask('/new')).status], [500, 500])
  })
})
