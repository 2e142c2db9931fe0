// Hostile clients of `/ws`: who may connect, what is no message, every message with every scope, sockets that are silent, that do
// not read, and that are half open.

import assert from 'node:assert/strict'
import { createConnection } from 'node:net'
import { test } from 'node:test'
import { createGateway, type GatewayOptions, type Scope } from '../../../src/gateway/index.ts'
import { MESSAGE_TYPES } from '../../../src/gateway/ws/messages/index.ts'
import { socketsOf } from '../../../src/gateway/ws/sockets.ts'
import { type GatewayServer, serve } from '../../support/gateway.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { ProblemReply, SocketClient } from '../../support/socket-client.ts'
import { until } from '../../support/wait.ts'

const SCOPES: readonly Scope[] = ['read', 'submit', 'work', 'admin']
const TOKENS = SCOPES.map((scope) => ({ token: `token-${scope}`, scopes: [scope] }))

async function open(options: GatewayOptions = {}): Promise<GatewayServer & AsyncDisposable> {
  const server = await serve(createGateway(options))
  return { ...server, [Symbol.asyncDispose]: () => server.close() }
}

test('ws hostile - who may connect: our host, our pages, no token in the URL', async () => {
  await using server = await open({ basePath: '/jobs', maxSockets: 3 })
  const attempt = (options: { path?: string; headers?: Record<string, string> }) =>
    SocketClient.open(server, { path: '/jobs/ws', ...options })
  const refused: [{ path?: string; headers?: Record<string, string> }, number][] = [
    [{ headers: { host: 'evil.example' } }, 421],
    [{ headers: { origin: 'https://evil.example' } }, 403],
    [{ headers: { origin: 'null' } }, 403],
    [{ headers: { 'sec-fetch-site': 'cross-site' } }, 403],
    [{ path: '/ws' }, 404],
    [{ path: '/jobs/q/foo' }, 404],
    [{ path: '/jobs/ws?token=token-admin' }, 400],
  ]
  for (const [options, status] of refused)
    await assert.rejects(attempt(options), new RegExp(`refused: ${status}`), JSON.stringify(options))
  await using _own = await attempt({ headers: { origin: server.url } })
  await using _two = await attempt({})
  await using _three = await attempt({})
  await assert.rejects(attempt({}), /refused: 503/)
  assert.equal((await server.call('GET', '/jobs/ws')).status, 426)
})

test('ws hostile - a page that has signed in needs no token; its cookie is of no use to pages of others', async () => {
  await using server = await open({ tokens: TOKENS })
  const body = JSON.stringify({ token: 'token-read' })
  const signedIn = await server.call('POST', '/session', { body, headers: { origin: server.url } })
  const cookie = signedIn.headers.get('set-cookie')?.split(';')[0] ?? ''
  await using page = await SocketClient.open(server, { headers: { cookie, origin: server.url } })
  assert.equal(await page.call('end', { sub: 1 }), false)
  await assert.rejects(page.call('take', { queue: 'foo' }), /403 insufficient scope/)
  for (const origin of ['https://evil.example', 'null'])
    await assert.rejects(SocketClient.open(server, { headers: { cookie, origin } }), /refused: 403/)
  await assert.rejects(SocketClient.open(server, { headers: { cookie } }), /refused: 403/)
  const forged = await SocketClient.open(server, { headers: { cookie: `${cookie}A`, origin: server.url } })
  await assert.rejects(forged.call('end', { sub: 1 }), /401 token required/)
  assert.equal((await forged.ended()).code, 1008)
})

test('ws hostile - every message demands its scope, before it is read', async () => {
  await using server = await open({ tokens: TOKENS })
  const silent = await SocketClient.open(server)
  await assert.rejects(silent.call('take', { queue: 'foo' }), /401 token required/)
  assert.equal((await silent.ended()).code, 1008)
  const wrong = await SocketClient.open(server)
  await assert.rejects(wrong.call('hello', { token: 'token' }), /401 token required/)
  assert.equal((await wrong.ended()).code, 1008)
  for (const scope of SCOPES) {
    // A program may say its token in a header too.
    const headers = scope === 'read' ? { authorization: 'Bearer token-read' } : {}
    await using client = await SocketClient.open(server, { headers })
    if (scope !== 'read')
      assert.deepEqual(await client.call('hello', { token: `token-${scope}` }), { scopes: [scope] })
    for (const { type, scope: needed } of MESSAGE_TYPES) {
      if (needed === 'public') continue
      const error = await client.call(type, { wrong: 1 }).catch((error: unknown) => error)
      assert.ok(error instanceof ProblemReply)
      const may = scope === 'admin' || [needed].flat().includes(scope)
      assert.deepEqual([error.problem['status'], type, scope], [may ? 400 : 403, type, scope])
    }
  }
})

test('ws hostile - what is no message ends the socket; a message that is wrong does not', async () => {
  await using server = await open({ maxBody: 64 * 1024 })
  const ends: [send: string | Buffer, code: number][] = [
    ['', 1007],
    ['x', 1007],
    ['[]', 1007],
    ['null', 1007],
    ['{}', 1007],
    ['{"id":1}', 1007],
    ['{"id":null,"type":"take"}', 1007],
    ['{"id":1.5,"type":"take"}', 1007],
    ['{"id":{"toString":1},"type":"take"}', 1007],
    [`{"id":"${'x'.repeat(65)}","type":"take"}`, 1007],
    [`{"id":1,"type":"take","x":${'['.repeat(1_001)}${']'.repeat(1_001)}}`, 1007],
    [Buffer.from('{"id":1,"type":"take","queue":"foo"}'), 1003],
    [`{"id":1,"type":"take","queue":"${'x'.repeat(64 * 1024)}"}`, 1009],
  ]
  for (const [sent, code] of ends) {
    const client = await SocketClient.open(server)
    client.socket.send(sent)
    assert.equal((await client.ended()).code, code, String(sent).slice(0, 60))
  }
  await using client = await SocketClient.open(server)
  for (const type of ['', '__proto__', 'constructor', 'toString', 'nothing'])
    await assert.rejects(client.call(type), /404 unknown message type/)
  const wrong: Record<string, unknown>[] = [
    {},
    { queue: '' },
    { queue: 'x'.repeat(257) },
    { queue: '\u0000' },
    { queue: ['foo'] },
    { queue: 'foo', lease: -1 },
    { queue: 'foo', lease: '1e9' },
    { queue: 'foo', lease: 0 },
    { queue: 'foo', wait: {} },
    { queue: 'foo', more: 1 },
    { queue: 'foo', command: 7 },
  ]
  for (const members of wrong)
    await assert.rejects(client.call('take', members), /400 invalid message/, JSON.stringify(members))
  client.socket.send('{"id":1000,"type":"take","queue":"foo","__proto__":{"lease":1}}')
  client.socket.send('{"id":1001,"type":"take","queue":"foo","queue":"bar","id":1002}')
  await until(() => client.others.length === 2, { what: 'the replies' })
  assert.match(client.others[0] ?? '', /"id":1000,"problem":.*invalid message/)
  assert.equal(client.others[1], '{"id":1002,"ok":null}')
})

test('ws hostile - one id names one subscription, and a socket has a bounded number of them', async () => {
  await using server = await open()
  await using client = await SocketClient.open(server)
  const send = (id: number) => client.socket.send(JSON.stringify({ id, type: 'watch', queue: 'foo' }))
  for (let id = 1; id <= 1_001; id++) {
    send(10_000 + id)
    // More at once are refused for that.
    if (id % 500 === 0) await until(() => client.others.length === id, { what: 'the replies' })
  }
  send(10_001)
  await until(() => client.others.length === 1_002, { what: 'the replies' })
  const problems = client.others.filter((text) => text.includes('problem'))
  assert.equal(problems.length, 2)
  assert.match(problems[0] ?? '', /too many subscriptions/)
  assert.match(problems[1] ?? '', /subscribed already/)
})

test('ws hostile - the bus: no subscription of another kind or socket, no name of another kind, no option that is not told', async () => {
  await using server = await open()
  await using owner = await SocketClient.open(server)
  await using other = await SocketClient.open(server)
  const queue = owner.send('attach', { queue: 'q' })
  assert.equal(await queue.reply, false)
  const topic = owner.send('subscribe', { topic: 't' })
  await topic.reply
  const push = { message: 1 }
  for (const sub of [queue.id, topic.id, 'x', -1])
    await assert.rejects(other.call('push', { sub, ...push }), /404 no such subscription/)
  for (const [type, members] of [
    ['push', push],
    ['consume', {}],
    ['ack', { upTo: 1 }],
    ['send', push],
    ['load', {}],
    ['save', { values: {} }],
    ['end-channel', {}],
  ] as const)
    await assert.rejects(owner.call(type, { sub: topic.id, ...members }), /404 no such subscription/, type)
  const wrong: [string, Record<string, unknown>][] = [
    // The queues of channels.
    ['attach', { queue: '\u0000["chat","local"]' }],
    ['attach', { queue: 'q', ttl: 0 }],
    ['attach', { queue: 'q', address: 'x' }],
    ['consume', { sub: queue.id, remove: false, reliable: true }],
    ['consume', { sub: queue.id, prefetch: 1_001 }],
    ['consume', { sub: queue.id, throttle: 1 }],
    ['consume', { sub: queue.id, max: 0 }],
    ['push', { sub: queue.id, message: 1, key: '' }],
    ['ack', { sub: queue.id, upTo: 0 }],
    ['subscribe', { topic: 't', keep: 10_001 }],
    ['subscribe', { topic: 't', from: { life: 'x', number: -1 } }],
    ['connect', { channel: 'c', local: 'a', remote: 'a' }],
    ['object', { object: 'o', properties: ['__proto__'] }],
    ['object', { object: 'o', properties: ['save'] }],
    ['object', { object: 'o', properties: [] }],
    ['inspect', { queue: 'q', of: 'constructor' }],
    ['call', { service: 's', event: 'e', args: Array(101).fill(1) }],
  ]
  for (const [type, members] of wrong)
    await assert.rejects(
      owner.call(type, members),
      /400 invalid message/,
      `${type} ${JSON.stringify(members)}`,
    )
  await assert.rejects(owner.call('call', { service: 'none', event: 'e' }), /404 no service/)
  const object = owner.send('object', { object: 'o', properties: ['a', 'constructor'] })
  await object.reply
  await assert.rejects(owner.call('save', { sub: object.id, values: { b: 1 } }), /400 invalid message/)
  assert.equal(await owner.call('save', { sub: object.id, values: { a: { $: 'undefined' } } }), true)
  assert.deepEqual(await owner.call('load', { sub: object.id }), { a: { $: 'undefined' } })
  assert.equal(Object.hasOwn(Object.prototype, 'a'), false)
})

test('ws hostile - a socket that says no token is ended after 5 s; one that answers no ping, after two', async () => {
  const clock = new ManualClock()
  await using server = await open({ clock, tokens: TOKENS })
  const silent = await SocketClient.open(server)
  await using spoken = await SocketClient.open(server)
  await spoken.call('hello', { token: 'token-read' })
  await clock.advance(4_999)
  assert.equal(silent.closed, undefined)
  await clock.advance(2)
  assert.equal((await silent.ended()).code, 1008)
  // Half open: it hears nothing, and says nothing.
  const half = createConnection(server.port, '127.0.0.1')
  half.on('error', () => {})
  half.write(
    'GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
      'Authorization: Bearer token-read\r\n' +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  )
  let isOver = false
  half.on('close', () => {
    isOver = true
  })
  await new Promise((resolve) => half.once('data', resolve))
  const pinged = new Promise((resolve) => spoken.socket.once('ping', resolve))
  await clock.advance(15_000)
  await pinged
  assert.deepEqual(await spoken.call('end', { sub: 1 }), false, 'its pong has arrived')
  assert.equal(isOver, false)
  await clock.advance(15_000)
  await until(() => isOver, { what: 'the half open socket to be ended' })
  assert.equal(spoken.closed, undefined)
})

test('ws hostile - a client that does not read is ended at a bound, and what it was not sent goes back', async () => {
  await using server = await open()
  const sockets = socketsOf(server.gateway)
  const client = await SocketClient.open(server)
  client.socket.pause()
  const body = JSON.stringify('x'.repeat(1_000_000))
  const jobs = 60
  for (let n = 0; n < jobs; n++) await server.call('POST', '/q/foo', { body })
  for (let n = 0; n < jobs; n++) client.send('take', { queue: 'foo', lease: '1h' }).reply.catch(() => {})
  // It is paused, and does not learn of it.
  await until(() => sockets.size === 0, { what: 'the socket to be ended' })
  // The bound, and what the system holds.
  await until(
    async () => ((await server.call('GET', '/j/foo')).json as { job_count: number }).job_count >= jobs / 2,
    { what: 'the jobs to go back' },
  )
  client.socket.terminate()
})
