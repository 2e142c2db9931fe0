// memoizeHandler in Express 5: in front of a whole application, as a middleware, and at a route.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import express, { type NextFunction, type Request, type Response } from 'express'
import pDefer from 'p-defer'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { HttpWorld, onBoth } from '../support/http-scene.ts'
import { temporaryFolder } from '../support/lifeline.ts'
import { LOCALHOST } from '../support/ports.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000

describe('memoize express', () => {
  onBoth('memoize express - as a middleware, concurrent requests run the route once', async (world) => {
    let runs = 0
    const open = () => {
      const app = express()
      app.use(memoizeHandler(world.locker(), { ttl: HOUR }))
      app.get('/page/:id', async (req, res) => {
        runs++
        await new Promise((resolve) => setTimeout(resolve, 50))
        res.json({ id: req.params.id, query: req.query, method: req.method, host: req.hostname, ip: req.ip })
      })
      return world.serve(app)
    }
    const servers = await Promise.all([open(), open()])
    const headers = { host: 'one.example' }
    const crowd = await Promise.all(
      Array.from({ length: 40 }, (_, i) => servers[i % 2]?.ask('/page/7?a=1', { headers })),
    )
    const expected = { id: '7', query: { a: '1' }, method: 'GET', host: 'one.example', ip: '127.0.0.1' }
    for (const answer of crowd) {
      assert.equal(answer?.status, 200)
      assert.deepEqual(JSON.parse(answer?.text ?? ''), expected)
      assert.match(String(answer?.headers['content-type']), /^application\/json/)
      assert.equal(answer?.headers['x-powered-by'], 'Express')
    }
    assert.equal(runs, 1)
  })

  test('memoize express - Express\u2019s own ETag, HEAD, Range and files', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const app = express()
    app.use(memoizeHandler(world.locker(), { ttl: HOUR }))
    app.get('/json', (_req, res) => {
      runs++
      res.json({ a: 1 })
    })
    const file = fileURLToPath(import.meta.url)
    app.get('/file', (_req, res) => {
      runs++
      res.sendFile(file, { maxAge: '1h' })
    })
    app.use('/static', express.static(fileURLToPath(new URL('.', import.meta.url)), { maxAge: '1h' }))
    const server = await world.serve(app)
    for (const path of ['/json', '/file', '/static/express.test.ts']) {
      // The first client has the page already: its 304 must not reach the others.
      const { headers } = await server.ask(path, { headers: { 'cache-control': 'no-store' } })
      runs = 0
      const known = { 'if-none-match': String(headers.etag) }
      assert.equal((await server.ask(path, { headers: known })).status, 304, path)
      const whole = await server.ask(path)
      assert.deepEqual([whole.status, whole.headers.etag], [200, headers.etag], path)
      assert.equal(whole.bytes.length, Number(headers['content-length']), path)
      const head = await server.ask(path, { method: 'HEAD' })
      assert.deepEqual([head.status, head.text, head.headers.etag], [200, '', headers.etag], path)
      const part = await server.ask(path, { headers: { range: 'bytes=1-3' } })
      assert.deepEqual([part.status, part.text], [206, whole.text.slice(1, 4)], path)
      if (!path.startsWith('/static')) assert.equal(runs, 1, path)
    }
  })

  test('memoize express - a file is not truncated for the others when the first client disconnects', async () => {
    await using world = new HttpWorld()
    const file = join(await temporaryFolder(), 'big')
    await writeFile(file, Buffer.alloc(4_000_000, 'x'))
    const app = express()
    let runs = 0
    const gone = pDefer<void>()
    const locker = world.locker()
    app.use(memoizeHandler(locker, {}))
    app.get('/big', async (_req, res) => {
      runs++
      await gone.promise
      res.sendFile(file, { maxAge: '1h' })
    })
    const server = await world.serve(app)
    const first = connect(server.port, LOCALHOST)
    first.write(`GET /big HTTP/1.1\r\nhost: ${LOCALHOST}:${server.port}\r\n\r\n`)
    await until(() => runs === 1, { what: 'the route to run' })
    const second = server.ask('/big')
    await until(() => locker.stats().waiters === 2, { what: 'both to wait' })
    first.destroy()
    await until(async () => (await server.connections()) === 1, { what: 'the first to be gone' })
    gone.resolve()
    assert.equal((await second).bytes.length, 4_000_000)
    assert.equal(runs, 1)
  })

  test('memoize express - middlewares before it run once for every client, and their headers are that client\u2019s', async () => {
    await using world = new HttpWorld()
    const app = express()
    let clients = 0
    app.use((_req, res, next) => {
      res.setHeader('x-request-id', ++clients)
      next()
    })
    app.get('/session', (_req, res, next) => {
      res.cookie('sid', `session-${clients}`)
      next()
    })
    // Session middlewares set their cookie when the head is written, too.
    app.get('/late', (_req, res, next) => {
      const { writeHead } = res
      const sid = `late-${clients}`
      res.writeHead = ((...args: Parameters<typeof writeHead>) => {
        res.appendHeader('set-cookie', `sid=${sid}`)
        return writeHead.apply(res, args)
      }) as typeof writeHead
      next()
    })
    app.use(memoizeHandler(world.locker(), { ttl: HOUR }))
    let runs = 0
    app.get('/{*path}', (_req, res) => void res.send(`page ${++runs}`))
    const server = await world.serve(app)
    for (const path of ['/page', '/session', '/late']) {
      clients = runs = 0
      const answers = await Promise.all(Array.from({ length: 5 }, () => server.ask(path)))
      answers.push(await server.ask(path))
      assert.deepEqual(new Set(answers.map(({ text }) => text)), new Set(['page 1']), path)
      assert.equal(new Set(answers.map(({ headers }) => headers['x-request-id'])).size, 6, path)
      const cookies = new Set(answers.map(({ headers }) => String(headers['set-cookie'])))
      assert.equal(cookies.size, path === '/page' ? 1 : 6, path)
      assert.equal(clients, 6)
    }
  })

  test('memoize express - stale responses are refreshed in the background', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const app = express()
    app.use((_req, res, next) => {
      res.locals['who'] = 'middleware'
      next()
    })
    app.use('/sub', memoizeHandler(world.locker(), {}))
    const router = express.Router()
    router.get('/page', (req, res) => {
      runs++
      res.set({ 'cache-control': 'max-age=1, stale-while-revalidate=60', age: '1' })
      res.send(`${res.locals['who']} ${req.baseUrl} ${runs}`)
    })
    app.use('/sub', router)
    const server = await world.serve(app)
    assert.equal((await server.ask('/sub/page')).text, 'middleware /sub 1')
    assert.equal((await server.ask('/sub/page')).text, 'middleware /sub 1')
    await until(async () => (await server.ask('/sub/page')).text !== 'middleware /sub 1', {
      what: 'a newer response',
    })
  })

  test('memoize express - at a route, with its handler: parameters and methods of Express work', async () => {
    await using world = new HttpWorld()
    const log: string[] = []
    const app = express()
    app.use((req, _res, next) => {
      log.push(req.originalUrl)
      next()
    })
    const handler = (req: Request, res: Response): void => {
      res.status(200).json([req.params, req.url, req.originalUrl, req.baseUrl, req.query, req.app === app])
    }
    const router = express.Router()
    router.get('/page/:id', memoizeHandler(world.locker(), { ttl: HOUR }, handler))
    app.use('/sub', router)
    const server = await world.serve(app)
    for (let i = 0; i < 2; i++) {
      const { text } = await server.ask('/sub/page/7?a=1')
      assert.equal(
        text,
        JSON.stringify([{ id: '7' }, '/page/7?a=1', '/sub/page/7?a=1', '/sub', { a: '1' }, true]),
      )
    }
    assert.equal(log.length, 2)
  })

  test('memoize express - headers that were removed before a route do not come back', async () => {
    await using world = new HttpWorld()
    const app = express()
    app.use((req, _res, next) => {
      delete req.headers['x-user']
      req.headers['x-tenant'] = 'trusted'
      next()
    })
    const handler = (req: IncomingMessage, res: ServerResponse) =>
      void res.end(
        JSON.stringify([req.headers['x-user'] ?? null, req.headers['x-tenant'], req.rawHeaders.join(' ')]),
      )
    app.get('/', memoizeHandler(world.locker(), { ttl: HOUR }, handler))
    const server = await world.serve(app)
    const { text } = await server.ask('/', { headers: { 'x-user': 'admin', 'x-tenant': 'forged' } })
    const [user, tenant, raw] = JSON.parse(text)
    assert.deepEqual([user, tenant], [null, 'trusted'])
    assert.doesNotMatch(raw, /admin|forged/)
  })

  test('memoize express - a response that has ended is not changed by a handler that continues', async () => {
    await using world = new HttpWorld()
    const app = express()
    app.use(memoizeHandler(world.locker(), { ttl: HOUR }))
    app.post('/', (_req, res, next) => {
      res.end('ok')
      // A common mistake: Express would answer by its error page.
      assert.throws(() => res.setHeader('content-length', '20'), { code: 'ERR_HTTP_HEADERS_SENT' })
      assert.equal(res.write('more'), false)
      res.end('again')
      next()
    })
    const server = await world.serve(app)
    for (let round = 0; round < 3; round++) {
      const { status, text, headers } = await server.ask('/', { method: 'POST' })
      assert.deepEqual([status, text, headers['content-length']], [200, 'ok', '2'])
    }
  })

  test('memoize express - an unsafe request with Upgrade invalidates', async () => {
    await using world = new HttpWorld()
    let version = 0
    const app = express()
    app.use(memoizeHandler(world.locker(), { ttl: HOUR }))
    app.get('/', (_req, res) => void res.send(`v${version}`))
    app.post('/', (_req, res) => {
      version++
      res.end()
    })
    const server = await world.serve(app)
    for (const headers of [{}, { connection: 'upgrade', upgrade: 'h2c' }, { expect: '100-continue' }]) {
      assert.equal((await server.ask('/')).text, `v${version}`)
      await server.ask('/', { method: 'POST', headers })
    }
    assert.equal((await server.ask('/')).text, 'v3')
  })

  test('memoize express - errors: the application\u2019s error handler, and next(error)', async () => {
    await using world = new HttpWorld()
    const seen: string[] = []
    const app = express()
    const fails = (_req: Request, _res: Response, next: NextFunction) => next(new Error('by next'))
    const passes = (_req: Request, _res: Response, next: NextFunction) => next()
    const throws = () => {
      throw new Error('thrown')
    }
    const locker = world.locker()
    const options = { ttl: HOUR, onError: (error: unknown) => seen.push(`told ${error}`) }
    app.get('/next', memoizeHandler(locker, options, fails))
    app.get('/throws', memoizeHandler(locker, options, throws))
    app.get('/passes', memoizeHandler(locker, options, passes), (_req, res) => void res.send('the next one'))
    app.use(memoizeHandler(locker, options))
    app.get('/route', async () => {
      throw new Error('in the route')
    })
    app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
      seen.push(error.message)
      res.status(500).send(`page of ${error.message}`)
    })
    const server = await world.serve(app)
    for (const [path, status, text, told] of [
      ['/next', 500, 'page of by next', ['by next']],
      ['/throws', 500, 'page of thrown', ['told Error: thrown', 'thrown']],
      ['/passes', 200, 'the next one', []],
      ['/route', 500, 'page of in the route', ['in the route']],
      ['/none', 404, undefined, []],
    ] as const) {
      const answer = await server.ask(path)
      assert.equal(answer.status, status, path)
      if (text) assert.equal(answer.text, text, path)
      assert.deepEqual(seen.splice(0), told, path)
    }
  })

  test('memoize express - in front of the whole application nothing runs twice', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const app = express()
    app.use((_req, _res, next) => {
      runs++
      next()
    })
    app.get('/', (_req, res) => void res.send('x'))
    app.post('/', express.json(), (req, res) => void res.json({ got: req.body }))
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: HOUR }, app))
    for (let i = 0; i < 3; i++) assert.equal((await server.ask('/')).text, 'x')
    assert.equal(runs, 1)
    const posted = await server.ask('/', {
      method: 'POST',
      body: '{"a":1}',
      headers: { 'content-type': 'application/json' },
    })
    assert.equal(posted.text, '{"got":{"a":1}}')
    assert.equal((await server.ask('/nowhere')).status, 404)
  })

  test('memoize express - a request with a parsed body is shared by its key', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const app = express()
    app.use(express.json())
    const key = ({ incoming }: { incoming?: IncomingMessage | undefined }) =>
      JSON.stringify((incoming as Request).body)
    app.use(memoizeHandler(world.locker(), { ttl: HOUR, methods: ['POST'], key }))
    app.post('/search', (req, res) => void res.json({ run: ++runs, for: req.body }))
    const server = await world.serve(app)
    const search = async (text: string) => {
      const asked = {
        method: 'POST',
        body: JSON.stringify({ text }),
        headers: { 'content-type': 'application/json' },
      }
      return JSON.parse((await server.ask('/search', asked)).text)
    }
    assert.deepEqual(await search('a'), { run: 1, for: { text: 'a' } })
    assert.deepEqual(await search('a'), { run: 1, for: { text: 'a' } })
    assert.deepEqual(await search('b'), { run: 2, for: { text: 'b' } })
  })
})
