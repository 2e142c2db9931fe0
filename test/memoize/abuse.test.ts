// Clients of a memoized node:http handler that disconnect, do not read, or provoke errors do not affect other clients.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { get, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { RecordingBudget } from '../../src/memoize/engine/recording.ts'
import { HttpCache, type HttpRequest, type OriginResponse } from '../../src/memoize/index.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { HttpWorld, type Served } from '../support/http-scene.ts'
import { until } from '../support/wait.ts'

/** Sends a request; `leave` disconnects. */
function visitor({ port }: Served, path: string, headers = {}): { leave(): void } {
  const asked = get({ host: '127.0.0.1', port, path, headers, agent: false }, (response) => response.resume())
  asked.on('error', () => undefined)
  return { leave: () => asked.destroy() }
}

describe('memoize abuse, clients that disconnect', () => {
  for (const [who, headers] of [
    ['with credentials', { authorization: 'x' }],
    ['without credentials', {}],
  ] as const)
    test(`memoize abuse - a disconnect ${who}: the handler runs once, and nothing is thrown`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      let ended = 0
      const handler = (_: IncomingMessage, response: ServerResponse): void => {
        runs++
        setTimeout(() => {
          response.writeHead(200, { 'content-type': 'text/plain' })
          response.end('page')
          ended++
        }, 100)
      }
      const server = await world.serve(memoizeHandler(world.locker(), { ttl: 60_000 }, handler))
      const { leave } = visitor(server, '/', headers)
      await until(() => runs === 1, { what: 'the handler to run' })
      leave()
      await until(() => ended === 1, { what: 'the handler to end' })
      await sleep(100)
      assert.equal(runs, 1)
      assert.equal((await server.ask('/other')).text, 'page')
    })

  test('memoize abuse - a disconnect while waiting for a turn: the handler does not run', async () => {
    await using world = new HttpWorld()
    const runs = new Map<unknown, number>()
    let most = 0
    let now = 0
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      const id = request.headers['x-id']
      runs.set(id, (runs.get(id) ?? 0) + 1)
      most = Math.max(most, ++now)
      setTimeout(() => {
        now--
        response.statusCode = 429
        response.end()
      }, 100)
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    const crowd = Array.from({ length: 40 }, (_, n) => visitor(server, '/', { 'x-id': `${n}` }))
    await until(() => runs.size > 8, { what: 'uncollapsed requests' })
    for (const { leave } of crowd) leave()
    await until(() => now === 0, { what: 'the handlers to end' })
    await sleep(200)
    // Handlers that ignore the disconnect still run while the next begin, whose disconnect is not seen yet.
    assert.ok(most <= 16, `${most} at once`)
    assert.ok(runs.size < 40, `${runs.size} ran`)
    assert.deepEqual(new Set(runs.values()), new Set([1]))
  })

  test('memoize abuse - a disconnect during an unsafe request: a later change is invalidated as well', async () => {
    await using world = new HttpWorld()
    let value = 'old'
    const gate = pDefer<void>()
    let left = false
    const handler = async ({ method }: IncomingMessage, response: ServerResponse): Promise<void> => {
      if (method === 'POST') {
        response.once('close', () => (left = true))
        await gate.promise
        value = 'new'
      }
      response.end(value)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: 60_000 }, handler))
    const socket = connect(server.port, '127.0.0.1').resume()
    socket.write(`POST / HTTP/1.1\r\nhost: 127.0.0.1:${server.port}\r\ncontent-length: 0\r\n\r\n`)
    await sleep(50)
    socket.destroy()
    await until(() => left, { what: 'the client to leave' })
    assert.equal((await server.ask('/')).text, 'old')
    gate.resolve()
    await until(async () => (await server.ask('/')).text === 'new', { what: 'the change to be seen' })
  })
})

describe('memoize abuse, clients that do not read', () => {
  test('memoize abuse - a client that does not read does not delay the refresh of a page', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = ({ url }: IncomingMessage, response: ServerResponse): void => {
      if (url === '/big')
        return void response.setHeader('cache-control', 'no-store').end(Buffer.alloc(20_000_000))
      // The first is stale at once, and the next is fresh for the rest of the test.
      const freshness = ++runs === 1 ? 'max-age=0, stale-while-revalidate=60' : 'max-age=60'
      response.setHeader('cache-control', freshness).end(`page ${runs}`)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { timeout: 60_000 }, handler))
    let asked = 0
    server.server.on('request', ({ url }: IncomingMessage) => url === '/page' && asked++)
    assert.equal((await server.ask('/page')).text, 'page 1')
    const silent = connect(server.port, '127.0.0.1').pause()
    await once(silent, 'connect')
    const line = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1:${server.port}\r\n\r\n`
    silent.write(line('/big') + line('/page'))
    await until(() => asked === 2, { what: 'the request of the client that does not read' })
    const refreshed = async () => {
      const { text } = await server.ask('/page')
      return text !== 'page 1' && text
    }
    assert.equal(await until(refreshed, { what: 'the refresh to be seen' }), 'page 2')
    silent.destroy()
  })

  test('memoize abuse - bodies that nobody reads do not prevent that others are recorded and stored', async () => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker(), { maxRecorded: 4_000_000 })
    const request = (url: string): HttpRequest => ({ method: 'GET', url, headers: { host: 'h' } })
    const large = (): OriginResponse => ({
      status: 200,
      headers: { 'cache-control': 'max-age=60' },
      body: (async function* () {
        for (let n = 0; n < 60; n++) yield Buffer.alloc(50_000)
      })(),
    })
    for (let n = 0; n < 5; n++) await cache.handle(request(`/large/${n}`), large)
    await sleep(100)
    const small = { status: 200, headers: { 'cache-control': 'max-age=60' } }
    await cache.handle(request('/small'), () => ({
      ...small,
      body: (async function* () {
        yield 'small'
      })(),
    }))
    assert.ok(!(cache.handle(request('/small'), () => small) instanceof Promise), 'it is stored')
  })
})

describe('memoize abuse, handlers', () => {
  test('memoize abuse - a handler that throws after the end of its response does not change it', async () => {
    await using world = new HttpWorld()
    const told: unknown[] = []
    const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
      response.end('done')
      throw new Error('afterwards')
    }
    const options = { ttl: 60_000, onError: (error: unknown) => told.push(error) }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    for (const asked of [{}, { headers: { cookie: 'a=b' } }, { method: 'POST' }]) {
      const { status, text } = await server.ask('/', asked)
      assert.deepEqual([status, text], [200, 'done'])
    }
    assert.equal(told.length, 3)
  })

  test('memoize abuse - a handler that writes after the end of its response affects no other response', async () => {
    await using world = new HttpWorld()
    const handler = ({ url }: IncomingMessage, response: ServerResponse): void => {
      response.on('error', () => undefined)
      if (url === '/slow') return void setTimeout(() => response.end('slow'), 150)
      response.end('page')
      setTimeout(() => response.write('late'), 20)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: 60_000 }, handler))
    const socket = connect(server.port, '127.0.0.1').resume()
    const line = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: h\r\n\r\n`
    socket.write(line('/slow') + line('/page'))
    await sleep(300)
    socket.destroy()
    assert.equal((await server.ask('/page')).text, 'page')
  })

  test('memoize abuse - a response is private when its URL changes after the decision', async () => {
    await using world = new HttpWorld()
    const cached = memoizeHandler(world.locker(), { ttl: 60_000 }, ({ url }, response) => {
      response.end(`for ${url}`)
    })
    const server = await world.serve((request, response) => {
      const { url = '' } = request
      request.url = url.slice(2)
      cached(request, response)
      request.url = url
    })
    for (const path of ['/a/x', '/b/x']) assert.equal((await server.ask(path)).text, `for ${path}`)
  })

  test('memoize abuse - Location invalidates in every form in which it is written', async () => {
    await using world = new HttpWorld()
    let list = 0
    const handler = ({ method }: IncomingMessage, response: ServerResponse): void => {
      if (method === 'POST') response.writeHead(303, [['Location', '/list']] as never).end()
      else response.end(`list ${++list}`)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: 60_000 }, handler))
    assert.equal((await server.ask('/list')).text, 'list 1')
    await server.ask('/add', { method: 'POST' })
    assert.equal((await server.ask('/list')).text, 'list 2')
  })
})

describe('memoize abuse, uncollapsed requests', () => {
  test('memoize abuse - a request with credentials streams, and releases what it has recorded', async () => {
    const used = new Set<RecordingBudget>()
    const { tryReserve: take } = RecordingBudget.prototype
    RecordingBudget.prototype.tryReserve = function (...args) {
      used.add(this)
      return take.apply(this, args)
    }
    try {
      await using world = new HttpWorld()
      const cache = new HttpCache(world.locker())
      const headers = { host: 'h', authorization: 'x' }
      let end: () => void = () => undefined
      const all = new Promise<void>((resolve) => (end = resolve))
      const answer = await cache.handle({ method: 'GET', url: '/', headers }, () => ({
        status: 200,
        headers: { 'cache-control': 'public, max-age=60' },
        body: (async function* () {
          yield Buffer.alloc(300_000)
          yield Buffer.alloc(300_000)
          await all
        })(),
      }))
      assert.ok(answer.body && !Buffer.isBuffer(answer.body), 'it is streamed')
      end()
      for await (const _ of answer.body);
      assert.equal(used.size, 1)
      for (const { bytes } of used) assert.equal(bytes, 0)
    } finally {
      RecordingBudget.prototype.tryReserve = take
    }
  })

  test('memoize abuse - they wait no longer than the timeout', async () => {
    await using world = new HttpWorld()
    const handler = (_: IncomingMessage, response: ServerResponse): void => {
      setTimeout(() => {
        response.statusCode = 403
        response.end()
      }, 300)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { timeout: 1_000 }, handler))
    const crowd = await Promise.all(Array.from({ length: 60 }, () => server.ask('/')))
    assert.deepEqual(new Set(crowd.map(({ status }) => status)), new Set([403, 504]))
  })
})

describe('memoize abuse, refreshes', () => {
  const refreshing = { ttl: 200, staleWhileRevalidate: 60_000 }

  for (const event of ['end', 'close'])
    test(`memoize abuse - a refresh by a handler that waits for '${event}' of the request`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      const handler = (request: IncomingMessage, response: ServerResponse): void => {
        const page = `page ${++runs}`
        if (event === 'end') request.resume().on('end', () => response.end(page))
        else if (runs === 1) response.end(page)
        else request.once('close', () => response.end(page))
      }
      const server = await world.serve(memoizeHandler(world.locker(), refreshing, handler))
      assert.equal((await server.ask('/')).text, 'page 1')
      await sleep(250)
      assert.equal((await server.ask('/')).text, 'page 1')
      await until(async () => (await server.ask('/')).text !== 'page 1', { what: 'the refresh' })
    })

  test('memoize abuse - a refresh happens although every client reads slowly', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = (_: IncomingMessage, response: ServerResponse): void => {
      response.setHeader('x-run', `${++runs}`)
      response.end(Buffer.alloc(8_000_000))
    }
    const server = await world.serve(memoizeHandler(world.locker(), refreshing, handler))
    await server.ask('/')
    await sleep(250)
    const slow = await server.begin('/')
    await sleep(1_500)
    for await (const _ of slow);
    await until(async () => (await server.ask('/')).headers['x-run'] !== '1', { what: 'the refresh' })
  })

  test('memoize abuse - no refresh by a request whose body nobody has read', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const options = { ...refreshing, methods: ['GET', 'POST'], key: ({ url }: HttpRequest) => url }
    const handler = (_: IncomingMessage, response: ServerResponse): void => {
      response.end(`result ${++runs}`)
    }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    const ask = async (body?: string) =>
      (await server.ask('/', { method: 'POST', ...(body !== undefined && { body }) })).text
    assert.equal(await ask('question'), 'result 1')
    await sleep(250)
    assert.equal(await ask('question'), 'result 2')
    await sleep(250)
    assert.equal(await ask(), 'result 2')
    await until(() => runs === 3, { what: 'the refresh by a request without a body' })
  })
})

describe('memoize abuse, invalidations', () => {
  test('memoize abuse - Location at the end invalidates although the client has disconnected', async () => {
    await using world = new HttpWorld()
    let value = 'old'
    const handler = async ({ method }: IncomingMessage, response: ServerResponse): Promise<void> => {
      if (method !== 'POST') return void response.end(value)
      await once(response, 'close')
      value = 'new'
      response.writeHead(303, { location: '/item' }).end()
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: 60_000 }, handler))
    assert.equal((await server.ask('/item')).text, 'old')
    const socket = connect(server.port, '127.0.0.1').resume()
    socket.write(`POST /add HTTP/1.1\r\nhost: 127.0.0.1:${server.port}\r\ncontent-length: 0\r\n\r\n`)
    await sleep(50)
    socket.destroy()
    await until(async () => (await server.ask('/item')).text === 'new', { what: 'the change to be seen' })
  })

  test('memoize abuse - a status that is set after the timeout of the own client is that of the shared response', async () => {
    await using world = new HttpWorld()
    const gates = [pDefer<void>(), pDefer<void>()]
    let runs = 0
    const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
      const run = runs++
      await gates[run]?.promise
      response.statusCode = run === 0 ? 403 : 410
      response.end()
    }
    const server = await world.serve(memoizeHandler(world.locker(), { timeout: 500 }, handler))
    const asks = [server.ask('/'), server.ask('/')]
    await sleep(250)
    gates[0]?.resolve()
    await until(() => runs === 2, { what: 'the second request to call the handler' })
    const waiter = server.ask('/')
    const statuses = (await Promise.all(asks)).map(({ status }) => status)
    assert.deepEqual(statuses.sort(), [403, 504])
    gates[1]?.resolve()
    assert.equal((await waiter).status, 410)
  })

  test('memoize abuse - an unsafe request may announce trailers', async () => {
    await using world = new HttpWorld()
    const handler = (_: IncomingMessage, response: ServerResponse): void => {
      response.setHeader('trailer', 'x-sum')
      response.addTrailers({ 'x-sum': '1' })
      response.end('done')
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    const { status, text } = await server.ask('/', { method: 'POST' })
    assert.deepEqual([status, text], [200, 'done'])
  })
})
