// memoizeHandler on node:http: handlers that fail, clients that disconnect, limits, and Redis away.

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
import { HttpWorld, onBoth, received } from '../support/http-scene.ts'
import { LOCALHOST } from '../support/ports.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000
const FRESH = { 'cache-control': 'max-age=60' }

/** A handler that counts its runs, and answers with the count. */
function counter(headers: Record<string, string> = FRESH) {
  const handler = (_request: IncomingMessage, response: ServerResponse): void => {
    handler.count++
    response.writeHead(200, headers).end(`answer ${handler.count}`)
  }
  handler.count = 0
  return handler
}

describe('memoize node, failures', () => {
  test('memoize node - a handler that throws: its client receives 500, onError is called, the others run it again', async () => {
    await using world = new HttpWorld()
    const told: unknown[] = []
    let [runs, requests] = [0, 0]
    const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      await until(() => requests >= 5, { what: 'all requests' })
      if (runs === 1) throw new Error('no database')
      response.end('fine')
    }
    const options = { onError: (error: unknown) => told.push(String(error)) }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    server.server.on('request', () => requests++)
    const crowd = await Promise.all(Array.from({ length: 5 }, () => server.ask('/')))
    const failed = crowd.filter(({ status }) => status === 500)
    assert.equal(failed.length, 1)
    assert.ok(!failed[0]?.text.includes('database'), 'the client does not see the error')
    assert.deepEqual(told, ['Error: no database'])
    assert.equal(crowd.filter(({ text }) => text === 'fine').length, 4)
    assert.equal(runs, 2)
  })

  test('memoize node - a truncated response is truncated for its client too, and is not stored', async () => {
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

  test('memoize node - a handler that never ends: 504 after the timeout, while other requests are served', async () => {
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
    // After the timeout nobody waits for this response. The next request runs the handler again.
    pending[0]?.writeHead(200, FRESH).end('too late')
    const next = server.ask('/never')
    await until(() => pending.length === 2, { what: 'the handler to run once more' })
    pending[1]?.writeHead(200, FRESH).end('at last')
    assert.equal((await next).text, 'at last')
  })

  onBoth('memoize node - a disconnect of one client does not affect the others', async (world) => {
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
      // pipeline() ends its source when the response closes.
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

  test('memoize node - a disconnect of the client of a private response ends the handler\u2019s work', async () => {
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
          // Writes nothing more until its client has gone.
          if (request.url === '/quiet') await once(response, 'close')
        }
      }
      await pipeline(Readable.from(endless()), response).catch(() => undefined)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: HOUR }, handler))
    for (const [i, path] of ['/', '/quiet'].entries()) {
      const response = await server.begin(path)
      response.destroy()
      await until(() => closed === i + 1, { what: `the response of ${path} to close` })
      const before = written
      await new Promise((resolve) => setImmediate(resolve))
      assert.equal(written, before)
    }
    // A client that disconnects before there is a response.
    const early = connect(server.port, LOCALHOST)
    early.write('GET /late HTTP/1.1\r\nhost: x\r\n\r\n')
    await until(() => late !== undefined, { what: 'the handler to run' })
    early.destroy()
    await until(async () => (await server.connections()) === 0, { what: 'the client to be gone' })
    late?.()
    await until(() => closed === 3, { what: 'the late response to close' })
  })

  test('memoize node - with the locker closed the handler works without the cache', async () => {
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
  test('memoize node - a body larger than maxBody is streamed to its client with backpressure, and not stored', async () => {
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
    // Until the writer is held up: all buffers on the way are full.
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

  test('memoize node - while Redis is away the handler runs once per process and key, up to maxUnshared', async () => {
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

  test('memoize node - with onUnavailable fail the client receives 503 while Redis is away', async () => {
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
