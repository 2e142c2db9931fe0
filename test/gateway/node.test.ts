// The listener for node:http, and what a gateway remembers of requests.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { toNodeListener } from '../../src/gateway/node.ts'
import { serve } from '../support/gateway.ts'
import { until } from '../support/wait.ts'

test('node - a gateway that was wrapped answers by Responses too', async () => {
  await using gateway = createGateway()
  const wrapped = {
    ...gateway,
    ready: () => gateway.ready(),
    close: () => gateway.close(),
    [Symbol.asyncDispose]: () => gateway.close(),
    fetch: async (request: Request, bindings?: object) =>
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
