// The listener for node:http, and what a gateway remembers of requests.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import * as http2 from 'node:http2'
import { type AddressInfo, connect } from 'node:net'
import { test } from 'node:test'
import { createGateway, type Gateway } from '../../src/gateway/index.ts'
import { toNodeListener } from '../../src/gateway/node.ts'
import { channelName, type TelemetryEvents } from '../../src/index.ts'
import { serve } from '../support/gateway.ts'
import { until } from '../support/wait.ts'

test('node - a gateway that was wrapped answers by Responses too', async () => {
  await using gateway = createGateway()
  const wrapped = {
    ...gateway,
    ready: () => gateway.ready(),
    close: () => gateway.close(),
    [Symbol.asyncDispose]: () => gateway.close(),
    fetch: async (request: Request, bindings?: object | null) =>
      request.url.endsWith('/mine')
        ? new Response('mine', { status: 418, headers: { 'x-by': 'wrapper' } })
        : gateway.fetch(request, bindings),
  }
  const server = createServer(toNodeListener(wrapped))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const mine = await fetch(`${url}/mine`)
  assert.deepEqual([mine.status, mine.headers.get('x-by'), await mine.text()], [418, 'wrapper', 'mine'])
  const healthy = await fetch(`${url}/healthz`)
  assert.deepEqual([healthy.status, await healthy.text()], [200, '{"status":"ok"}'])
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

test('node - requests that wait behind one another on a connection stop waiting when it is reset', async () => {
  const server = await serve(createGateway())
  const waiting = async () => {
    const { text } = await server.call('GET', '/metrics')
    return Number(/^soloflight_waiting_requests (\d+)$/m.exec(text)?.[1])
  }
  const warnings: Error[] = []
  const onWarning = (warning: Error) => warnings.push(warning)
  process.on('warning', onWarning)
  const socket = connect(server.port, '127.0.0.1')
  socket.on('error', () => {})
  const count = 12
  for (let n = 0; n < count; n++) socket.write(`GET /q/q${n}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  await until(async () => (await waiting()) === count, { what: 'all to wait' })
  socket.resetAndDestroy()
  await until(async () => (await waiting()) === 0, { what: 'none to wait' })
  process.removeListener('warning', onWarning)
  assert.deepEqual(warnings, [])
  await server.close()
})

test('node - an answer is the same by fetch and over a connection', async () => {
  const server = await serve(createGateway())
  const posted = { body: '{"a":1}' }
  for (const [method, path, options] of [
    ['GET', '/healthz', {}],
    ['HEAD', '/healthz', {}],
    ['GET', '/q/none', {}],
    ['GET', '/none', {}],
    ['PATCH', '/healthz', {}],
    ['POST', '/q/jobs', { body: '{' }],
    ['POST', '/q/jobs?wait=0.01', posted],
    ['GET', '/q/jobs', {}],
    ['POST', '/w/jobs', { headers: { 'x-presque-workerid': 'me' } }],
    ['DELETE', '/w/jobs', { headers: { 'x-presque-workerid': 'me' } }],
    ['GET', '/docs', {}],
  ] as const) {
    if (path === '/q/jobs' && method === 'GET') await server.fetch('POST', path, posted)
    const answers = [await server.fetch(method, path, options), await server.call(method, path, options)]
    const [byFetch, byConnection] = answers.map(({ status, headers, text }) => ({
      status,
      text: text.replace(/[\w-]{16,}/g, 'ID'),
      headers: ['content-type', 'cache-control', 'x-content-type-options', 'allow', 'x-job-attempt'].map(
        (name) => headers.get(name),
      ),
    }))
    assert.deepEqual(byConnection, byFetch, `${method} ${path}`)
    assert.equal(byFetch?.headers[2], 'nosniff')
  }
  await server.close()
})

test('node - what is remembered of a query or a host changes no answer', async () => {
  const server = await serve(createGateway())
  const statusOf = async (path: string, headers = {}) => (await server.call('GET', path, { headers })).status
  for (let round = 0; round < 2; round++) {
    // The same query means something else to another route.
    assert.equal(await statusOf('/q/jobs?batch_size=2'), 400)
    assert.equal(await statusOf('/qb/jobs?batch_size=2'), 404)
    assert.equal(await statusOf('/q/jobs?lease=30'), 404)
    assert.equal(await statusOf('/q/jobs?lease=30&lease=30'), 400)
    assert.equal(await statusOf('/q/jobs?lease=never'), 400)
  }
  // More than is remembered.
  for (let wait = 0; wait < 300; wait++) assert.equal(await statusOf(`/q/jobs?wait=${wait}us`), 400)
  for (let command = 0; command < 300; command++)
    assert.equal(await statusOf(`/q/jobs?command=c${command}`), 404)
  const byHost = async (host: string) => {
    const request = new Request('http://localhost/q/jobs', { headers: { host } })
    return (await server.gateway.fetch(request)).status
  }
  for (let port = 1; port <= 300; port++) assert.equal(await byHost(`localhost:${port}`), 404)
  for (const host of [
    'evil.test',
    'localhost.evil.test',
    'localhost@evil.test',
    'evil.test/localhost',
    'localhost:x',
    '',
  ])
    assert.equal(await byHost(host), 421, host)
  await server.close()
})

type Version = 'HTTP/1.1' | 'HTTP/2'

interface Listening extends AsyncDisposable {
  readonly port: number
  /** Makes a request. Resolves when its response has ended, or was cut. */
  request(method: string, path: string): Promise<void>
}

/** Calls `listener` for the requests of a server. */
async function listening(
  version: Version,
  listener: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Listening> {
  const isOne = version === 'HTTP/1.1'
  const server = isOne ? createServer(listener) : http2.createServer(listener as never)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  const session = isOne ? undefined : http2.connect(url)
  return {
    port,
    async request(method, path) {
      if (!session)
        return void (await fetch(url + path, { method })
          .then((r) => r.text())
          .catch(() => {}))
      const stream = session.request({ ':method': method, ':path': path })
      stream.on('error', () => {})
      stream.resume().end()
      await once(stream, 'close')
    },
    async [Symbol.asyncDispose]() {
      session?.destroy()
      if ('closeAllConnections' in server) server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The gateway, which looks at each request after `before`. */
function delayed(gateway: Gateway, before: (bindings: { outgoing: ServerResponse }) => unknown): Gateway {
  return {
    ready: () => gateway.ready(),
    close: () => gateway.close(),
    [Symbol.asyncDispose]: () => gateway.close(),
    async fetch(request, bindings) {
      await before(bindings as { outgoing: ServerResponse })
      return gateway.fetch(request, bindings)
    },
  }
}

async function openStreams(gateway: Gateway): Promise<number> {
  const metrics = await (await gateway.fetch(new Request('http://localhost/metrics'))).text()
  return Number(/^soloflight_open_streams (\d+)$/m.exec(metrics)?.[1])
}

async function submit(gateway: Gateway): Promise<string> {
  const posted = await gateway.fetch(new Request('http://localhost/q/jobs', { method: 'POST', body: '1' }))
  return ((await posted.json()) as { id: string }).id
}

/** Resolves when the job waits for a worker. */
async function waiting(gateway: Gateway, id: string): Promise<void> {
  let state: unknown
  const isWaiting = async () => {
    const answer = await gateway.fetch(new Request(`http://localhost/j/jobs/${id}`))
    state = ((await answer.json()) as { state: string }).state
    assert.notEqual(state, 'completed')
    return state === 'waiting'
  }
  await until(isWaiting, { what: 'the job to wait' })
}

test('node - fetch takes null for no bindings', async () => {
  await using gateway = createGateway()
  assert.equal((await gateway.fetch(new Request('http://localhost/healthz'), null)).status, 200)
})

for (const version of ['HTTP/1.1', 'HTTP/2'] as const) {
  test(`node - an event stream whose client has gone early is not counted, ${version}`, async () => {
    await using gateway = createGateway({ maxStreams: 5 })
    let gone = 0
    let answered = 0
    const onRequest = toNodeListener(
      delayed(gateway, async ({ outgoing }) => {
        const closed = once(outgoing, 'close')
        leave.shift()?.()
        await closed
        gone++
      }),
    )
    const leave: (() => void)[] = []
    await using server = await listening(version, (request, response) => {
      void onRequest(request, response).then(() => answered++)
    })
    for (let n = 0; n < 10; n++) {
      if (version === 'HTTP/1.1') {
        const socket = connect(server.port, '127.0.0.1')
        leave.push(() => socket.destroy())
        socket.write('GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n')
      } else {
        const session = http2.connect(`http://127.0.0.1:${server.port}`)
        const stream = session.request({ ':path': '/events' })
        stream.on('error', () => {})
        leave.push(() => stream.close(http2.constants.NGHTTP2_CANCEL))
        stream.on('close', () => session.close())
      }
      await until(() => answered === n + 1, { what: 'the answer' })
    }
    assert.equal(gone, 10)
    assert.equal(await openStreams(gateway), 0)
  })

  test(`node - an answer that cannot be sent is reported, and gives back what it holds, ${version}`, async () => {
    await using gateway = createGateway()
    const onRequest = toNodeListener(gateway)
    const listeners: Promise<void>[] = []
    const broken = new Error('broken')
    let isBroken: 'writeHead' | 'end' = 'writeHead'
    await using server = await listening(version, (request, response) => {
      response[isBroken] = () => {
        throw broken
      }
      listeners.push(onRequest(request, response))
    })
    const errors: unknown[] = []
    const hear = (message: unknown) => errors.push((message as TelemetryEvents['hook']).error)
    subscribe(channelName('hook'), hear)
    try {
      for (isBroken of ['writeHead', 'end'] as const) {
        const id = await submit(gateway)
        await server.request('GET', '/q/jobs')
        await waiting(gateway, id)
        await gateway.fetch(new Request(`http://localhost/j/jobs/${id}`, { method: 'DELETE' }))
      }
      isBroken = 'writeHead'
      await server.request('GET', '/events')
      await server.request('PATCH', '/healthz')
      assert.equal(await openStreams(gateway), 0)
      await Promise.all(listeners)
      assert.deepEqual(errors, [broken, broken, broken, broken])
    } finally {
      unsubscribe(channelName('hook'), hear)
    }
  })
}

test('node - a request that cannot be read, and whose answer cannot be sent, rejects nothing', async () => {
  await using gateway = createGateway()
  const onRequest = toNodeListener(gateway)
  let listener: Promise<void> | undefined
  await using server = await listening('HTTP/1.1', (request, response) => {
    response.writeHead = () => {
      throw new Error('broken')
    }
    listener = onRequest(request, response)
  })
  const socket = connect(server.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.resume().write('GET / HTTP/1.1\r\nHost: a/b\r\n\r\n')
  await once(socket, 'close')
  await listener
})

test('node - an error of a gateway that was wrapped is told as an error of the server', async () => {
  await using gateway = createGateway()
  const onRequest = toNodeListener(
    delayed(gateway, () => {
      throw new Error('secret')
    }),
  )
  const server = createServer(onRequest)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/healthz`)
  assert.equal(answer.status, 500)
  assert.doesNotMatch(await answer.text(), /secret/)
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})
