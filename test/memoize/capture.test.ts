// The handler writes to its client's own response, which is captured: middlewares before the cache, what the handler may do
// to request and response, and what its client does meanwhile.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, Socket } from 'node:net'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import compression from 'compression'
import type { Response } from 'express'
import session from 'express-session'
import pDefer from 'p-defer'
import { type MemoizeHandlerOptions, memoizeHandler } from '../../src/memoize/node.ts'
import { CHAINS, json, type Step } from '../support/chains.ts'
import { HttpWorld, type Served } from '../support/http-scene.ts'
import { temporaryFolder } from '../support/lifeline.ts'
import { LOCALHOST } from '../support/ports.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000
const FRESH = { 'cache-control': 'max-age=60' }
const STALE = { 'cache-control': 'max-age=1, stale-while-revalidate=60', age: '1' }
const LONG = 'All work and no play makes Jack a dull boy. '.repeat(200)
const GZIP = { 'accept-encoding': 'gzip' }

/** A client on a plain socket: `seen` is what it has received so far. */
async function dial(server: Served, text: string): Promise<{ socket: Socket; seen: () => string }> {
  const socket = connect(server.port, LOCALHOST)
  let seen = ''
  socket.setEncoding('latin1').on('data', (data) => {
    seen += data
  })
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  socket.write(text)
  return { socket, seen: () => seen }
}

const get = (path = '/', more = '') => `GET ${path} HTTP/1.1\r\nhost: x\r\n${more}\r\n`

for (const [name, chain] of Object.entries(CHAINS)) {
  const serve = (world: HttpWorld, before: Step[], behind: Step[], options: MemoizeHandlerOptions = {}) =>
    world.serve(chain(...before, memoizeHandler(world.locker(), { ttl: HOUR, ...options }), ...behind))

  describe(`memoize capture, ${name}, middlewares before the cache`, () => {
    test(`memoize capture - ${name}: a middleware before the cache runs once for every client`, async () => {
      await using world = new HttpWorld()
      const [log, ended]: [string[], string[]] = [[], []]
      const logger: Step = (request, response, next) => {
        log.push(`${request.method} ${request.url}`)
        response.on('finish', () =>
          ended.push(`${request.method} ${response.statusCode} ${response.getHeader('content-length')}`),
        )
        next()
      }
      let runs = 0
      const page: Step = (_request, response) => {
        runs++
        response.setHeader('etag', '"a"')
        setTimeout(() => response.end('the page'), 20)
      }
      const server = await serve(world, [logger], [page])
      const [head] = await Promise.all([
        server.ask('/', { method: 'HEAD' }),
        server.ask('/'),
        server.ask('/'),
      ])
      assert.equal(head.headers['content-length'], '8')
      await server.ask('/', { headers: { 'if-none-match': '"a"' } })
      assert.deepEqual([log.sort(), runs], [['GET /', 'GET /', 'GET /', 'HEAD /'], 1])
      await until(() => ended.length === 4, { what: 'all to be logged' })
      assert.deepEqual(ended.sort(), ['GET 200 8', 'GET 200 8', 'GET 304 undefined', 'HEAD 200 8'])
    })

    test(`memoize capture - ${name}: a body that a middleware has parsed is there, and one that was not can be read`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      const key = ({ incoming }: { incoming?: IncomingMessage | undefined }) =>
        JSON.stringify((incoming as { body?: unknown }).body ?? incoming?.headers['x-key'])
      const answer: Step = (request, response) =>
        response.end(`${++runs} ${(request as { body?: { a?: unknown } }).body?.a}`)
      const options = { methods: ['POST'], key }
      const parsedBefore = await serve(world, [json()], [answer], options)
      const parsedBehind = await serve(world, [], [json(), answer], options)
      const twice = await serve(world, [json()], [json(), answer], options)
      for (const server of [parsedBefore, parsedBehind, twice]) {
        runs = 0
        for (const [a, expected] of [
          [1, '1 1'],
          [1, '1 1'],
          [2, '2 2'],
        ] as const) {
          const headers = { 'content-type': 'application/json', 'x-key': `${server.port} ${a}` }
          const body = JSON.stringify({ a, of: server.port })
          assert.equal((await server.ask('/', { method: 'POST', headers, body })).text, expected)
        }
      }
    })

    test(`memoize capture - ${name}: a session per client: its cookie is not stored, and does not prevent sharing`, async () => {
      await using world = new HttpWorld()
      const store = new session.MemoryStore()
      const sessions = session({
        secret: 'x',
        resave: false,
        saveUninitialized: true,
        store,
      }) as unknown as Step
      let runs = 0
      const page: Step = (request, response) => {
        runs++
        if (request.url === '/login')
          (request as { session?: { user?: string } }).session = Object.assign(
            (request as { session?: object }).session ?? {},
            { user: 'ann' },
          )
        setTimeout(() => response.end(`page ${runs}`), 10)
      }
      const server = await serve(world, [sessions], [page])
      const answers = await Promise.all(Array.from({ length: 5 }, () => server.ask('/')))
      answers.push(await server.ask('/'))
      for (const { text, headers } of answers)
        assert.deepEqual([text, headers['set-cookie']?.length], ['page 1', 1])
      assert.equal(new Set(answers.map(({ headers }) => String(headers['set-cookie']))).size, 6)
      const all = await new Promise<object>((resolve) => store.all((_error, all) => resolve(all ?? {})))
      assert.equal(Object.keys(all).length, 6)
    })

    test(`memoize capture - ${name}: cookies of the handler are added to those of middlewares, for one client`, async () => {
      await using world = new HttpWorld()
      let [clients, runs] = [0, 0]
      const before: Step = (_request, response, next) => {
        response.setHeader('set-cookie', [`client=${++clients}`])
        response.setHeader('x-gone', 'x')
        next()
      }
      const page: Step = (request, response) => {
        response.removeHeader('x-gone')
        if (request.url === '/sets') response.appendHeader('set-cookie', `run=${++runs}`)
        if (request.url === '/replaces') response.setHeader('set-cookie', `run=${++runs}`)
        response.end('page')
      }
      const server = await serve(world, [before], [page])
      for (const [path, expected] of [
        ['/sets', ['client=1', 'run=1']],
        ['/sets', ['client=2', 'run=2']],
        ['/replaces', ['run=3']],
        ['/page', ['client=4']],
        ['/page', ['client=5']],
      ] as const) {
        const { headers } = await server.ask(path)
        assert.deepEqual(headers['set-cookie'], expected, path)
        if (clients < 5) assert.equal(headers['x-gone'], undefined)
      }
    })

    test(`memoize capture - ${name}: Cache-Control and Vary of middlewares count`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      const before: Step = (request, response, next) => {
        if (request.url === '/private') response.setHeader('cache-control', 'private')
        response.setHeader('vary', 'X-Origin')
        response.setHeader('x-allow', String(request.headers['x-origin']))
        next()
      }
      const server = await serve(world, [before], [(_, response) => response.end(`page ${++runs}`)])
      assert.notEqual((await server.ask('/private')).text, (await server.ask('/private')).text)
      for (const origin of ['a', 'b', 'a', 'b']) {
        const { headers } = await server.ask('/', { headers: { 'x-origin': origin } })
        assert.equal(headers['x-allow'], origin)
      }
      assert.ok(runs <= 5, `${runs} runs`)
    })

    test(`memoize capture - ${name}: compression before the cache compresses for each client separately`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      const page: Step = (request, response) => {
        runs++
        response.setHeader('content-type', 'text/plain')
        if (request.url === '/pieces') {
          response.write(LONG)
          setTimeout(() => response.end(LONG), 100)
        } else response.end(LONG)
      }
      const server = await serve(world, [compression() as unknown as Step], [page])
      for (const [path, expected] of [
        ['/', LONG],
        ['/pieces', LONG + LONG],
      ] as const) {
        runs = 0
        for (const headers of [GZIP, {}, GZIP, {}]) {
          const { bytes, headers: got } = await server.ask(path, { headers })
          assert.equal(got['content-encoding'], 'accept-encoding' in headers ? 'gzip' : undefined)
          const text = 'accept-encoding' in headers ? gunzipSync(bytes) : bytes
          assert.ok(String(text) === expected, `${path}: ${text.length} bytes`)
        }
        assert.equal(runs, 1)
      }
      assert.equal((await server.ask('/', { method: 'HEAD', headers: GZIP })).text, '')
    })

    test(`memoize capture - ${name}: compressed responses from behind the cache are stored by Accept-Encoding`, async () => {
      await using world = new HttpWorld()
      const page: Step = (_request, response) => {
        response.setHeader('content-type', 'text/plain')
        response.write(LONG)
        setTimeout(() => response.end(LONG), 100)
      }
      const server = await serve(world, [], [compression() as unknown as Step, page])
      for (const headers of [GZIP, {}, GZIP, {}]) {
        const { bytes, headers: got } = await server.ask('/', { headers })
        assert.equal(got['content-encoding'], 'accept-encoding' in headers ? 'gzip' : undefined)
        assert.equal(String('accept-encoding' in headers ? gunzipSync(bytes) : bytes), LONG + LONG)
      }
    })

    test(`memoize capture - ${name}: with sessions and compression a stale response is served at once and refreshed`, async () => {
      await using world = new HttpWorld()
      const sessions = session({ secret: 'x', resave: false, saveUninitialized: true }) as unknown as Step
      const gates = [pDefer<void>(), pDefer<void>()]
      let [runs, seen]: [number, unknown[]] = [0, []]
      const page: Step = async (request, response) => {
        const run = runs++
        await gates[run]?.promise
        seen = [
          request.method,
          request.headers['if-none-match'],
          response.headersSent,
          response.writableEnded,
          request.destroyed,
        ]
        for await (const _ of request) assert.fail('there is no body')
        response.writeHead(200, { ...STALE, 'content-type': 'text/plain' })
        response.end(`${run} ${LONG}`)
      }
      const server = await serve(world, [sessions, compression() as unknown as Step], [page])
      gates[0]?.resolve()
      const ask = async (asked = {}) => {
        const { bytes, status, headers } = await server.ask('/', { headers: GZIP, ...asked })
        assert.equal(headers['set-cookie']?.length, 1)
        return status === 200 && bytes.length > 0 ? String(gunzipSync(bytes)).slice(0, 1) : status
      }
      assert.equal(await ask(), '0')
      assert.equal(await ask({ method: 'HEAD' }), 200)
      for (let i = 0; i < 5; i++) assert.equal(await ask(), '0')
      await until(() => runs === 2, { what: 'the refresh' })
      gates[1]?.resolve()
      await until(async () => (await ask()) === '1', { what: 'the refreshed response' })
      assert.deepEqual(seen, ['GET', undefined, false, false, false])
      assert.ok(runs >= 2, `${runs} runs`)
    })
  })

  describe(`memoize capture, ${name}, what the handler does`, () => {
    test(`memoize capture - ${name}: a stale response to a request with a body is refreshed if the body was read, and not served if not`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      const page: Step = (_request, response) => {
        response.writeHead(200, STALE).end(`page ${++runs}`)
      }
      const options = { methods: ['POST'], key: () => 'one' }
      const asked = { method: 'POST', body: '{"a":1}', headers: { 'content-type': 'application/json' } }
      const parsed = await serve(world, [json()], [page], options)
      assert.equal((await parsed.ask('/', asked)).text, 'page 1')
      await until(async () => (await parsed.ask('/', asked)).text !== 'page 1', {
        what: 'the refreshed response',
      })
      runs = 0
      const unread = await serve(world, [], [page], { ...options, key: () => 'two' })
      for (let i = 1; i <= 3; i++) assert.equal((await unread.ask('/', asked)).text, `page ${i}`)
    })

    test(`memoize capture - ${name}: server-sent events of a private response arrive at once, compressed or not`, async () => {
      await using world = new HttpWorld()
      const streams: ServerResponse[] = []
      const page: Step = (_request, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        response.flushHeaders()
        streams.push(response)
      }
      for (const before of [[], [compression() as unknown as Step]]) {
        const server = await serve(world, before, [page])
        const clients = await Promise.all([GZIP, {}, {}].map((headers) => server.begin('/', { headers })))
        assert.equal(streams.length, 3)
        for (const [i, client] of clients.entries()) {
          for (const event of ['one', 'two']) {
            streams[i]?.write(`data: ${event} ${i}\n\n`)
            const [data] = await once(client, 'data')
            assert.ok(data.length > 0, event)
          }
          const closed = once(streams[i] as ServerResponse, 'close')
          client.destroy()
          await closed
        }
        streams.length = 0
      }
    })

    test(`memoize capture - ${name}: a file is sent whole although its first client disconnects`, async () => {
      await using world = new HttpWorld()
      const file = join(await temporaryFolder(), 'big')
      await writeFile(file, Buffer.alloc(4_000_000, 'x'))
      const { createReadStream } = await import('node:fs')
      let gone = pDefer<void>()
      let runs = 0
      const events: string[] = []
      const page: Step = async (request, response) => {
        runs++
        request.on('aborted', () => events.push('aborted')).on('close', () => events.push('request closed'))
        response.on('close', () => events.push(response.writableFinished ? 'closed' : 'cut short'))
        if (request.url === '/head') response.writeHead(200, FRESH).write('x')
        await gone.promise
        events.push(
          `${response.destroyed} ${request.destroyed} ${request.aborted} ${request.socket.destroyed}`,
        )
        if ('sendFile' in response && request.url !== '/head')
          (response as Response).sendFile(file, { maxAge: '1h' })
        else createReadStream(file).pipe(response)
      }
      const locker = world.locker()
      const server = await world.serve(chain(memoizeHandler(locker, { ttl: HOUR }), page))
      for (const path of ['/', '/head']) {
        ;[runs, events.length, gone] = [0, 0, pDefer()]
        const first = await dial(server, get(path))
        await until(() => runs > 0, { what: 'the handler to run' })
        if (path === '/head') await until(() => first.seen() !== '', { what: 'the head' })
        const second = server.ask(path, { headers: { host: 'x' } })
        await until(() => locker.stats().waiters === 2, { what: 'both to wait' })
        first.socket.destroy()
        await until(async () => (await server.connections()) === 1, { what: 'the first to be gone' })
        gone.resolve()
        assert.equal((await second).bytes.length, path === '/' ? 4_000_000 : 4_000_001)
        assert.equal(runs, 1)
        await until(() => events.includes('closed'), { what: 'the response to close' })
        assert.deepEqual(events.slice(0, 1), ['false false false false'])
        assert.ok(!events.includes('aborted') && !events.includes('cut short'), events.join())
      }
    })

    test(`memoize capture - ${name}: the handler sees a disconnect when no client waits, before its head and after`, async () => {
      await using world = new HttpWorld()
      const events: string[] = []
      let runs = 0
      const page: Step = (request, response) => {
        runs++
        request.on('aborted', () => events.push('aborted'))
        response.on('close', () => events.push(`closed ${response.destroyed} ${response.writableFinished}`))
        if (request.url === '/after') response.writeHead(200, FRESH).write('x')
      }
      const server = await serve(world, [], [page])
      for (const path of ['/before', '/after']) {
        ;[runs, events.length] = [0, 0]
        const { socket, seen } = await dial(server, get(path))
        await until(() => runs === 1, { what: 'the handler to run' })
        if (path === '/after') await until(() => seen() !== '', { what: 'the head' })
        socket.destroy()
        await until(() => events.length === 2, { what: `the events of ${path}` })
        assert.deepEqual(events.sort(), ['aborted', 'closed true false'])
      }
    })

    test(`memoize capture - ${name}: errors before and after the head, and next()`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      const page: Step = (request, response, next) => {
        runs++
        if (request.url === '/error') next(new Error('failed'))
        else if (request.url === '/passed') next()
        else {
          response.writeHead(200, FRESH)
          response.write('half')
          setTimeout(() => response.destroy(new Error('broken')), request.url === '/late' ? 100 : 0)
        }
      }
      const passed: Step = (request, response, next) =>
        request.url === '/passed' ? response.end('passed on') : next()
      const server = await serve(world, [], [page, passed])
      assert.equal((await server.ask('/passed')).text, 'passed on')
      assert.equal((await server.ask('/passed')).text, 'passed on')
      assert.equal(runs, 1)
      const crowd = await Promise.all(Array.from({ length: 4 }, () => server.ask('/error')))
      assert.deepEqual(
        crowd.map(({ status }) => status),
        [500, 500, 500, 500],
      )
      assert.equal((await server.ask('/soon')).status, 500)
      await assert.rejects(server.ask('/late'))
      assert.equal((await server.ask('/passed')).text, 'passed on')
    })

    test(`memoize capture - ${name}: the handler sees the addresses of the client\u2019s socket, and the lifetime of the captured one`, async () => {
      await using world = new HttpWorld()
      const page: Step = ({ socket, connection }, response) => {
        assert.ok(socket instanceof Socket)
        assert.ok(connection === socket && response.socket === socket)
        const { remoteAddress, remotePort, localPort, destroyed, writable } = socket
        const address = socket.address() as { port: number }
        const rest = [
          'encrypted' in socket,
          typeof socket.remoteFamily,
          socket.setNoDelay(true) !== undefined,
        ]
        response.end(
          JSON.stringify([remoteAddress, remotePort, localPort, address.port, destroyed, writable, ...rest]),
        )
      }
      const server = await serve(world, [], [page])
      const asked = httpRequest({ host: LOCALHOST, port: server.port })
      asked.end()
      const [response] = (await once(asked, 'response')) as [IncomingMessage]
      const port = response.socket.localPort
      let text = ''
      for await (const chunk of response) text += chunk
      assert.deepEqual(JSON.parse(text), [
        LOCALHOST,
        port,
        server.port,
        server.port,
        false,
        true,
        false,
        'string',
        true,
      ])
    })

    test(`memoize capture - ${name}: 1xx responses reach the client whose request the handler received`, async () => {
      await using world = new HttpWorld()
      const page: Step = (_request, response) => {
        response.writeEarlyHints({ link: '</a.css>; rel=preload' })
        response.writeProcessing()
        response.writeHead(200, ['x-a', '1', 'x-a', '2', 'trailer', 'x-sum']).write('body')
        response.addTrailers({ 'x-sum': '1' })
        response.end()
      }
      const server = await serve(world, [], [page])
      const close = 'connection: close\r\n'
      const first = await server.raw(get('/', close))
      assert.match(
        first,
        /^HTTP\/1\.1 103 Early Hints\r\nLink: .*\r\n\r\nHTTP\/1\.1 102 .*\r\n\r\nHTTP\/1\.1 200 OK\r\n/,
      )
      assert.match(first, /x-a: 2\r\n/)
      assert.match(await server.raw(get('/', close)), /^HTTP\/1\.1 200 OK\r\n[\s\S]*body$/)
    })

    test(`memoize capture - ${name}: pipelined requests on one connection are answered in order`, async () => {
      await using world = new HttpWorld()
      const page: Step = (request, response) => {
        setTimeout(() => response.end(`<${request.url}>`), request.url === '/slow' ? 60 : 0)
      }
      const server = await serve(world, [compression() as unknown as Step], [page])
      for (let round = 0; round < 2; round++) {
        const text = await server.raw(
          get('/slow') + get('/a') + get('/slow') + get('/b', 'connection: close\r\n'),
        )
        assert.deepEqual(text.match(/<.*?>/g), ['</slow>', '</a>', '</slow>', '</b>'])
      }
    })

    test(`memoize capture - ${name}: a private response is streamed with backpressure, whole`, async () => {
      await using world = new HttpWorld()
      const TOTAL = 32 * 1024 * 1024
      const piece = Buffer.alloc(64 * 1024, 'x')
      let written = 0
      const page: Step = async (_request, response) => {
        response.writeHead(200, { 'cache-control': 'private' })
        async function* pieces() {
          for (written = 0; written < TOTAL; written += piece.length) yield piece
        }
        await pipeline(Readable.from(pieces()), new PassThrough(), response)
      }
      const server = await serve(world, [], [page])
      const response = await server.begin('/')
      response.pause()
      let last = -1
      const heldUp = (): boolean => {
        const before = last
        last = written
        return before === written
      }
      await until(heldUp, { what: 'the writer to be held up', every: 100 })
      assert.ok(written < TOTAL / 2, `${written} bytes wait for a client that does not read`)
      let received = 0
      for await (const chunk of response) received += chunk.length
      assert.equal(received, TOTAL)
    })

    test(`memoize capture - ${name}: chunks keep their order when the handler writes while the cache does`, async () => {
      await using world = new HttpWorld()
      const pieces = Array.from({ length: 60 }, (_, i) => String(i).padStart(7000))
      const page: Step = (_request, response) => {
        response.writeHead(200, { 'cache-control': 'private' })
        let at = 0
        const goOn = (): void => {
          while (at < pieces.length)
            if (!response.write(pieces[at++])) return void response.once('drain', goOn)
          response.end()
        }
        goOn()
      }
      const server = await serve(world, [], [page])
      for (let i = 0; i < 5; i++) assert.ok((await server.ask('/')).text === pieces.join(''), 'the order')
    })

    test(`memoize capture - ${name}: a handler that was cut off does not change what its client receives`, async () => {
      await using world = new HttpWorld()
      const pending: ServerResponse[] = []
      const server = await serve(world, [], [(_request, response) => pending.push(response)], { timeout: 50 })
      const { status } = await server.ask('/')
      assert.equal(status, 504)
      const late = pending[0] as ServerResponse
      late.setHeader('x-late', '1')
      late.writeHead(200, FRESH)
      late.write('too')
      late.end('late')
      const next = server.ask('/')
      await until(() => pending.length === 2, { what: 'the handler to run again' })
      pending[1]?.end('in time')
      assert.equal((await next).text, 'in time')
    })
  })
}
