// What comes from outside: paths, bodies and sizes. Each has a status of its own, and the gateway goes on.

import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { createGateway, type GatewayOptions } from '../../src/gateway/index.ts'
import { assertProblem, type GatewayServer, onBothWorlds, serve } from '../support/gateway.ts'

async function open(options: GatewayOptions = {}): Promise<GatewayServer & AsyncDisposable> {
  const server = await serve(createGateway(options))
  return { ...server, [Symbol.asyncDispose]: () => server.close() }
}

/** Sends bytes, and returns what comes back until the socket is closed. */
function raw({ port }: GatewayServer, ...parts: (string | Buffer)[]): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      for (const part of parts) socket.write(part)
    })
    let text = ''
    socket.on('data', (data) => {
      text += data.toString('latin1')
      if (text.includes('\r\n\r\n')) socket.end()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
  })
}

onBothWorlds('hostile - names of queues: any that a queue can have, each a queue of its own', async (w) => {
  const { call } = await w.open()
  const names = [
    'foo:',
    'foo',
    '%66oo:',
    'a%2Fb',
    'a%2520b',
    'a%20b',
    '%7B%7D',
    '..%2F..%2Fetc',
    '*',
    'r%C3%A9s',
    '%F0%9F%9A%80',
    'x'.repeat(256),
  ]
  for (const name of names)
    assert.equal((await call('POST', `/q/${name}`, { body: JSON.stringify(name) })).status, 201, name)
  for (const name of names.filter((name) => !name.startsWith('%66') && name !== 'foo:'))
    assert.equal((await call('GET', `/q/${name}`)).text, JSON.stringify(name), name)
  // These two are the same name.
  assert.equal((await call('GET', '/j/foo:')).text.includes('"job_count":2'), true)
  for (const name of ['%00', 'a%0Ab', '%C2%85', 'x'.repeat(257)])
    assertProblem(await call('GET', `/j/${name}`), 400, 'invalid queue name')
  for (const name of ['%', '%zz', '%ff', '%ED%A0%80', '%C3%28'])
    assertProblem(await call('GET', `/j/${name}`), 400, 'invalid path')
  for (const name of ['..', '.', '%2e%2e', 'a/b/c/d'])
    assert.equal((await call('GET', `/j/${name}`)).status, 404, name)
  assertProblem(await call('GET', '/q/foo?command=%00'), 400, 'invalid parameter')
  assertProblem(await call('GET', '/nothing'), 404, 'no such route')
  const { status, headers } = await call('PATCH', '/control/foo')
  assert.deepEqual([status, headers.get('allow')], [405, 'GET, POST'])
})

onBothWorlds('hostile - bodies that are no JSON are refused, and nothing is posted', async (w) => {
  const { call } = await w.open()
  assertProblem(await call('POST', '/q/foo', { body: '' }), 400, 'job is missing')
  assertProblem(await call('POST', '/q/foo'), 400, 'job is missing')
  for (const body of [' ', '{', '{"a":1,}', "{'a':1}", 'foo=bar', 'NaN', '\ufeff1', '1 2', '"\n"'])
    assertProblem(await call('POST', '/q/foo', { body }), 400, 'invalid json')
  assert.equal((await call('GET', '/j/foo')).text.includes('"job_count":0'), true)
})

onBothWorlds('hostile - JSON of any depth has a status', async (w) => {
  const { call } = await w.open({ maxBody: 4_000_000 })
  for (const depth of [1001, 200_000]) {
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const) {
      const body = `${open.repeat(depth)}1${close.repeat(depth)}`
      assertProblem(await call('POST', '/q/foo', { body }), 400, 'json is too deep')
      assertProblem(await call('POST', '/qb/foo', { body: `{"jobs":[${body}]}` }), 400, 'json is too deep')
    }
    assertProblem(await call('POST', '/q/foo', { body: '['.repeat(depth) }), 400, 'json is too deep')
  }
  const deepest = '['.repeat(1000) + ']'.repeat(1000)
  assert.equal((await call('POST', '/q/foo', { body: deepest })).status, 201)
  assert.ok((await call('GET', '/status/foo?with_desc=1')).text.includes(deepest))
  assert.equal((await call('GET', '/q/foo')).text, deepest)
  const text = JSON.stringify('[{"\\'.repeat(2000))
  assert.equal((await call('POST', '/q/foo', { body: text })).status, 201, 'brackets in a text are no depth')
})

test('hostile - a body that is too large is refused: announced, streamed, and by fetch', async () => {
  await using gateway = await open({ maxBody: 1000 })
  const head = 'POST /q/foo HTTP/1.1\r\nHost: localhost\r\n'
  const fits = JSON.stringify('x'.repeat(998))
  assert.equal((await gateway.call('POST', '/q/foo', { body: fits })).status, 201)
  assertProblem(await gateway.call('POST', '/q/foo', { body: `${fits} ` }), 413, 'body is too large')
  const announced = await raw(gateway, `${head}Content-Length: 1000000000\r\n\r\n`)
  assert.match(announced, /^HTTP\/1.1 413 /)
  const chunk = `3e8\r\n${'x'.repeat(1000)}\r\n`
  const streamed = await raw(gateway, `${head}Transfer-Encoding: chunked\r\n\r\n`, chunk, chunk)
  assert.match(streamed, /^HTTP\/1.1 413 /)
  let pulled = 0
  let cancelled = false
  const body = new ReadableStream({
    pull(controller) {
      pulled++
      controller.enqueue(new Uint8Array(100))
    },
    cancel() {
      cancelled = true
    },
  })
  for (const headers of [{}, { 'content-length': '1' }]) {
    const request = new Request('http://localhost/q/foo', {
      method: 'POST',
      body: body.locked ? '0'.repeat(1001) : body,
      duplex: 'half',
      headers,
    })
    assert.equal((await gateway.gateway.fetch(request)).status, 413)
  }
  assert.ok(cancelled && pulled < 20, `${pulled} pulled`)
})

test('hostile - a body that is slow, cut off, or not UTF-8 has a status, and the gateway goes on', async () => {
  await using gateway = await open({ bodyTimeout: 200 })
  const head = 'POST /q/foo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n'
  assert.match(await raw(gateway, head, '"slow'), /^HTTP\/1.1 408 /)
  const utf8 = await raw(gateway, head.replace('10', '3'), Buffer.from([0x22, 0xff, 0x22]))
  assert.match(utf8, /^HTTP\/1.1 400 /)
  assert.match(utf8, /body is not utf-8/)
  await new Promise<void>((resolve) => {
    const socket = connect(gateway.port, '127.0.0.1', () =>
      socket.write(`${head}"cut`, () => socket.destroy()),
    )
    socket.on('close', () => resolve())
  })
  for (const garbage of ['GET  HTTP/1.1\r\n\r\n', 'POST /q/foo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'])
    assert.match(await raw(gateway, garbage), /^HTTP\/1.1 4\d\d |^$/)
  assert.equal((await gateway.call('POST', '/q/foo', { body: '1' })).status, 201)
  assert.equal((await gateway.call('GET', '/q/foo')).text, '1')
})

test('hostile - a fault of the gateway tells nothing of it', async () => {
  const said: string[] = []
  const onWarning = (warning: Error) => said.push(warning.message)
  process.on('warning', onWarning)
  await using gateway = await open({
    queueOptions: {
      trace: () => {
        throw new Error('secret-of-the-hook')
      },
    },
  })
  assert.equal((await gateway.call('POST', '/q/foo', { body: '1' })).status, 201, 'a hook harms nobody')
  const broken = createGateway({})
  await broken.close({ grace: 0 })
  const answer = await broken.fetch(new Request('http://localhost/q/foo'))
  assert.equal(answer.status, 503)
  assert.match(await answer.text(), /gateway is closing/)
  process.off('warning', onWarning)
})

onBothWorlds(
  'hostile - too many jobs, lines, or bytes of progress are refused, and change nothing',
  async (w) => {
    const { call } = await w.open()
    const jobs = JSON.stringify({ jobs: Array.from({ length: 1_001 }, () => 0) })
    assertProblem(await call('POST', '/qb/foo', { body: jobs }), 413, 'too many jobs')
    assertProblem(await call('GET', '/q/foo'), 404, 'no job')
    await call('POST', '/q/foo', { body: '1' })
    const taken = await call('GET', '/q/foo?lease=30')
    const headers = { 'x-lease': taken.headers.get('x-lease') ?? '' }
    const progress = JSON.stringify({ progress: 'x'.repeat(100_000) })
    assertProblem(await call('PATCH', '/q/foo', { headers, body: progress }), 413, 'progress is too large')
    const log = JSON.stringify({ log: Array.from({ length: 300_000 }, () => '') })
    assertProblem(await call('PATCH', '/q/foo', { headers, body: log }), 400, 'invalid json')
    assert.equal((await call('PUT', '/q/foo', { headers, body: '2' })).status, 204)
    assertProblem(await call('POST', '/q/foo?abort=unwanted', { body: '1' }), 400, 'invalid parameter')
  },
)
