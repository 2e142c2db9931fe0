// examples/reverse-proxy.ts in real processes, on a real Redis, in front of a real origin.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, createServer, type IncomingMessage, type RequestListener, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { compiled } from '../support/compiled.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'
import { Program } from './cache-tests/program.ts'

const PROXY = fileURLToPath(new URL('../../examples/reverse-proxy.ts', import.meta.url))

interface World extends AsyncDisposable {
  get(path: string): Promise<{ response: IncomingMessage; body: Buffer }>
  /** The response; its body has not been read. */
  open(path: string): Promise<IncomingMessage>
  /** Closes the origin. */
  close(): void
}

/** Proxies on one port and one Redis, in front of an origin with this handler. */
async function proxies(processes: number, listener: RequestListener): Promise<World> {
  const t = await setup()
  const origin = createServer(listener).listen(0, '127.0.0.1')
  const close = () => {
    origin.close()
    origin.closeAllConnections()
  }
  await once(origin, 'listening')
  const { port: originPort } = origin.address() as AddressInfo
  const proxy = new Program([
    ...[await compiled(PROXY), '--port', '0', '--redis', t.url],
    ...['--origin', `http://127.0.0.1:${originPort}`, '--processes', String(processes)],
  ])
  const [, port] = await proxy.wrote(/Listening on .*?(\d+)[/ }]/gs, processes)
  const agent = new Agent({ keepAlive: false })
  const open = async (path: string) => {
    const asked = request({ port, path, agent })
    asked.maxHeadersCount = 0
    const [response] = await once(asked.end(), 'response')
    return response as IncomingMessage
  }
  return {
    close,
    open,
    async get(path) {
      const response = await open(path)
      const chunks: Buffer[] = []
      for await (const chunk of response) chunks.push(chunk)
      return { response, body: Buffer.concat(chunks) }
    },
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]()
      close()
      await t[Symbol.asyncDispose]()
    },
  }
}

test('http proxy - 500 requests in four processes call the origin once', async () => {
  const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => i % 256))
  let asked = 0
  await using world = await proxies(4, async (_, response) => {
    asked++
    await sleep(500)
    response.writeHead(200, { 'cache-control': 'max-age=60', 'x-a': ['1', '2'] })
    response.end(bytes)
  })
  const answers = await Promise.all(Array.from({ length: 500 }, () => world.get('/slow')))
  for (const { response, body } of answers) {
    assert.equal(response.statusCode, 200)
    assert.equal(response.headers['x-a'], '1, 2')
    assert.ok(body.equals(bytes), `${body.length} bytes`)
  }
  assert.equal(asked, 1)
})

test('http proxy - a response longer than maxBody streams to each client', async () => {
  const piece = Buffer.alloc(1 << 20, 'x')
  const pieces = 12
  await using world = await proxies(1, async (incoming, response) => {
    response.writeHead(200, { 'cache-control': 'max-age=60' })
    for (let i = 0; i < pieces; i++) {
      if (!response.write(piece)) await once(response, 'drain')
    }
    response.end(incoming.url)
  })
  for (let i = 0; i < 2; i++) {
    const { body } = await world.get('/large')
    assert.equal(body.length, pieces * piece.length + '/large'.length)
  }
})

test('http proxy - while the origin is down, stale-if-error is served, and other requests get a 502', async () => {
  await using world = await proxies(2, (_, response) => {
    response.writeHead(200, { 'cache-control': 'max-age=1, stale-if-error=600', age: '10' })
    response.end('kept')
  })
  assert.equal((await world.get('/a')).body.toString(), 'kept')
  world.close()
  for (let i = 0; i < 4; i++) assert.equal((await world.get('/a')).body.toString(), 'kept')
  assert.equal((await world.get('/b')).response.statusCode, 502)
})

test('http proxy - four processes refresh a stale response once, while all serve it', async () => {
  let asked = 0
  const held: (() => void)[] = []
  await using world = await proxies(4, (_, response) => {
    const count = ++asked
    const answer = () => {
      const control =
        count === 1
          ? { age: '10', 'cache-control': 'max-age=1, stale-while-revalidate=600' }
          : { 'cache-control': 'max-age=60' }
      response.writeHead(200, control)
      response.end(String(count))
    }
    if (count === 1) answer()
    else held.push(answer)
  })
  await world.get('/a')
  for (let i = 0; i < 40; i++) assert.equal((await world.get('/a')).body.toString(), '1')
  await until(() => asked > 1, { what: 'the refresh' })
  for (const answer of held) answer()
  await until(async () => (await world.get('/a')).body.toString() === '2', { what: 'the new response' })
  for (let i = 0; i < 20; i++) assert.equal((await world.get('/a')).body.toString(), '2')
  assert.equal(asked, 2)
})

test('http proxy - an event stream ends at the origin when its client leaves', async () => {
  let ended = 0
  await using world = await proxies(1, (_, response) => {
    response.on('close', () => ended++)
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
  })
  const reader = await world.open('/events')
  const [chunk] = await once(reader, 'data')
  assert.equal(String(chunk), 'data: 1\n\n')
  reader.destroy()
  await until(() => ended === 1, { what: 'the origin to see the disconnect' })
})

test('http proxy - a head with thousands of lines is read completely', async () => {
  await using world = await proxies(1, (request, response) => {
    const lines = Array.from({ length: 2_100 }, () => ['a', 'b']).flat()
    response.writeHead(200, [...lines, 'cache-control', 'private', 'set-cookie', 'id=1'])
    response.end(request.url)
  })
  const { response } = await world.get('/')
  assert.equal(response.headers['cache-control'], 'private')
  const again = await world.get('/')
  assert.match(String(again.response.headers['cache-status']), /fwd/)
})
