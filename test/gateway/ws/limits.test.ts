// What clients of `/ws` can make a gateway hold: each by itself, and all together. The session of a browser; the audit event;
// values byte for byte.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { WebSocketServer } from 'ws'
import { createGateway, type GatewayOptions } from '../../../src/gateway/index.ts'
import { socketsOf } from '../../../src/gateway/ws/sockets.ts'
import { channelName } from '../../../src/index.ts'
import { type GatewayServer, onBothWorlds, serve } from '../../support/gateway.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { ProblemReply, SocketClient } from '../../support/socket-client.ts'
import { until } from '../../support/wait.ts'

async function open(options: GatewayOptions = {}): Promise<GatewayServer & AsyncDisposable> {
  const server = await serve(createGateway(options))
  return { ...server, [Symbol.asyncDispose]: () => server.close() }
}

const answerOf = (reply: Promise<unknown>): Promise<string> =>
  reply.then(
    () => 'ok',
    (error: unknown) => (error instanceof ProblemReply ? error.message : 'closed'),
  )

test('ws limits - what subscriptions keep is bounded: for a socket, and for all; it is free when they end', async () => {
  await using server = await open()
  const { kept } = socketsOf(server.gateway).pools
  const properties = Array.from({ length: 1_000 }, (_, n) => 'p'.repeat(240) + n)
  await using client = await SocketClient.open(server)
  const openAll = async (on: SocketClient, count: number) => {
    const answers: string[] = []
    for (let n = 0; n < count; n++)
      answers.push(await answerOf(on.call('object', { object: `o${n}`, properties })))
    return answers
  }
  const answers = await openAll(client, 40)
  assert.deepEqual(new Set(answers), new Set(['ok', '429 too many subscriptions']))
  assert.ok(answers.indexOf('429 too many subscriptions') > 20)
  assert.ok(kept.used <= kept.limit.each)
  kept.limit = { ...kept.limit, all: kept.used + 500_000 }
  await using other = await SocketClient.open(server)
  assert.deepEqual(await openAll(other, 3), ['ok', '503 overloaded', '503 overloaded'])
  await client.call('end', { sub: 1 })
  assert.deepEqual(await openAll(other, 1), ['ok'])
  client.socket.terminate()
  other.socket.terminate()
  await until(() => kept.used === 0, { what: 'all to be free' })
})

test('ws limits - the values of an object count', async () => {
  await using server = await open()
  const { kept } = socketsOf(server.gateway).pools
  kept.limit = { each: 100_000, all: 1_000_000 }
  await using client = await SocketClient.open(server)
  const values = { a: 'x'.repeat(40_000) }
  const opened = async () => {
    const { id, reply } = client.send('object', { object: 'o', properties: ['a'] })
    await reply
    return id
  }
  const first = await opened()
  assert.equal(await client.call('save', { sub: first, values }), true)
  const second = await opened()
  await assert.rejects(client.call('load', { sub: second }), /429 too many subscriptions/)
  await assert.rejects(client.call('load', { sub: second }), /404 no such subscription/)
  await client.call('end', { sub: first })
  assert.deepEqual(await client.call('load', { sub: await opened() }), values)
})

test('ws limits - what has arrived before reading stops is refused beyond a bound, for a socket and for all', async () => {
  await using gateway = createGateway()
  const sockets = socketsOf(gateway)
  const { handled } = sockets.pools
  handled.limit = { each: 200_000, all: 450_000 }
  const flood = () => {
    const sent: string[] = []
    const send = async (text: string) => sent.push(text) > 0
    const peer = { send, buffered: 0, ping() {}, close() {}, terminate() {} }
    const listener = sockets.open(peer, ['submit'])
    const call = { type: 'call', service: 'none', event: 'e', args: ['x'.repeat(100_000)], wait: 50 }
    for (let id = 1; id <= 20; id++) listener.onMessage(JSON.stringify({ id, ...call }))
    return { sent, listener }
  }
  const one = flood()
  await until(() => one.sent.length > 0, { what: 'an answer' })
  assert.match(String(one.sent[0]), /"overloaded"/)
  assert.ok(handled.used > 200_000 && handled.used < 800_000, String(handled.used))
  const others = [flood(), flood(), flood(), flood()]
  assert.ok(handled.used < 4 * 450_000, String(handled.used))
  for (const { listener } of [one, ...others]) listener.onClose()
  await until(() => handled.used === 0, { what: 'all to be over' })
})

test('ws limits - a socket is not read while its messages are too large, and all of them are handled then', async () => {
  await using gateway = createGateway()
  const sockets = socketsOf(gateway)
  sockets.pools.handled.limit = { each: 100_000, all: 1_000_000 }
  const server = createServer()
  const sizes: number[] = []
  let pauses = 0
  let resumes = 0
  new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket) => {
    const listener = sockets.open(
      {
        send: (text) => new Promise((resolve) => socket.send(text, (error) => resolve(!error))),
        get buffered() {
          return socket.bufferedAmount
        },
        ping: () => socket.ping(),
        pause() {
          pauses++
          socket.pause()
        },
        resume() {
          resumes++
          socket.resume()
        },
        close: (code, reason) => socket.close(code, reason),
        terminate: () => socket.terminate(),
      },
      ['submit'],
    )
    socket.on('message', (data: Buffer) => {
      listener.onMessage(data.toString())
      sizes.push(sockets.pools.handled.used)
    })
    socket.on('close', () => listener.onClose())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  {
    await using client = await SocketClient.open({ port: (server.address() as AddressInfo).port })
    const call = { service: 'none', event: 'e', args: ['x'.repeat(60_000)], wait: '50ms' }
    const answers = await Promise.all(Array.from({ length: 20 }, () => answerOf(client.call('call', call))))
    assert.deepEqual(new Set(answers), new Set(['404 no service']))
  }
  assert.ok(Math.max(...sizes) < 200_000, String(Math.max(...sizes)))
  assert.ok(pauses >= 5 && resumes === pauses, `${pauses} ${resumes}`)
  server.close()
})

onBothWorlds(
  'ws limits - many watches of one queue are one, and of many queues leave room for the rest',
  async (w) => {
    const server = await w.open()
    await using client = await SocketClient.open(server)
    const answers: Promise<string>[] = []
    for (let n = 0; n < 520; n++) answers.push(answerOf(client.call('watch', { queue: `never${n}` })))
    const told = await Promise.all(answers)
    assert.equal(told.filter((answer) => answer === 'ok').length, 500)
    assert.equal(told.filter((answer) => answer === '503 overloaded').length, 20)
    assert.equal((await server.call('POST', '/q/legit', { body: '1' })).status, 201)
    assert.equal(await answerOf(client.call('watch', { queue: 'never0' })), 'ok')
    await client.call('end', { sub: 1 })
    assert.equal(
      await answerOf(client.call('watch', { queue: 'new' })),
      '503 overloaded',
      'it is watched still',
    )
    await client.call('end', { sub: 2 })
    assert.equal(await answerOf(client.call('watch', { queue: 'new' })), 'ok')
  },
)

test('ws limits - sockets that do not read: the slowest is ended when all have too much waiting', async () => {
  await using server = await open()
  const sockets = socketsOf(server.gateway)
  const { buffered } = sockets.pools
  buffered.limit = { ...buffered.limit, all: 3_000_000 }
  await using reader = await SocketClient.open(server)
  await reader.call('subscribe', { topic: 't' })
  const deaf: SocketClient[] = []
  for (let n = 0; n < 3; n++) {
    const client = await SocketClient.open(server)
    await client.call('subscribe', { topic: 't' })
    client.socket.pause()
    deaf.push(client)
  }
  const body = JSON.stringify('x'.repeat(500_000))
  for (let n = 0; sockets.size > 1; n++) {
    assert.ok(n < 100, 'all that do not read are ended')
    assert.ok((await server.call('POST', '/b/t', { body })).status < 300)
    assert.ok(buffered.used <= 3_000_000, String(buffered.used))
    await until(() => reader.pushes.length === n + 1 || sockets.size === 1, { what: 'the message' })
  }
  assert.equal(reader.closed, undefined)
  for (const client of deaf) client.socket.terminate()
})

test('ws limits - a socket that a page has opened ends with its session', async () => {
  const clock = new ManualClock()
  await using server = await open({ clock, tokens: [{ token: 'token-read', scopes: ['read'] }] })
  const body = JSON.stringify({ token: 'token-read' })
  const signedIn = await server.call('POST', '/session', { body, headers: { origin: server.url } })
  const cookie = signedIn.headers.get('set-cookie')?.split(';')[0] ?? ''
  const page = await SocketClient.open(server, { headers: { cookie, origin: server.url } })
  await using program = await SocketClient.open(server, { headers: { authorization: 'Bearer token-read' } })
  for (const client of [page, program]) await client.call('end', { sub: 1 })
  // A session lasts 12 h.
  clock.advance(12 * 60 * 60_000)
  assert.deepEqual(await page.ended(), { code: 1008, reason: 'session is over' })
  assert.equal(await program.call('end', { sub: 1 }), false)
})

test('ws limits - sockets without a token have few places, and the oldest gives way', async () => {
  const tokens = [{ token: 'token-read', scopes: ['read' as const] }]
  // The time that they have is never over.
  await using server = await open({ tokens, maxSockets: 20, clock: new ManualClock() })
  const silent = [await SocketClient.open(server), await SocketClient.open(server)]
  await using third = await SocketClient.open(server)
  await silent[0]?.ended()
  assert.equal(silent[1]?.closed, undefined)
  await third.call('hello', { token: 'token-read' })
  await using _fourth = await SocketClient.open(server)
  await using _fifth = await SocketClient.open(server)
  await silent[1]?.ended()
  assert.deepEqual(await third.call('end', { sub: 1 }), false)
})

onBothWorlds(
  'ws audit - admin actions are told, with the name of the token, and what came of them',
  async (w) => {
    const tokens = [
      { token: 'token-admin', name: 'ann', scopes: ['admin' as const] },
      { token: 'token-submit', name: 'bob', scopes: ['submit' as const] },
    ]
    const server = await w.open({ tokens })
    const told: unknown[] = []
    const listener = (data: unknown) => void told.push(data)
    subscribe(channelName('gateway:action'), listener)
    try {
      // By its header, and by its first message.
      await using ann = await SocketClient.open(server, { headers: { authorization: 'Bearer token-admin' } })
      await using bob = await SocketClient.open(server)
      await bob.call('hello', { token: 'token-submit' })
      const { id: sub, reply } = ann.send('attach', { queue: 'q' })
      await reply
      await assert.rejects(bob.call('flush', { queue: 'q' }), /403/)
      assert.equal(await ann.call('flush', { queue: 'q' }), 0)
      await ann.call('close', { sub })
    } finally {
      unsubscribe(channelName('gateway:action'), listener)
    }
    const none = { id: undefined, count: undefined }
    assert.deepEqual(told, [
      { who: 'bob', action: 'flush', queue: 'q', status: 403, ...none },
      { who: 'ann', action: 'flush', queue: 'q', status: 200, ...none },
      { who: 'ann', action: 'close', queue: 'q', status: 200, ...none },
    ])
  },
)

onBothWorlds(
  'ws values - of objects and metadata are kept byte for byte, and none is named __proto__',
  async (w) => {
    const server = await w.open()
    await using client = await SocketClient.open(server)
    const texts: string[] = []
    client.socket.on('message', (data) => texts.push(String(data)))
    const raw = async (id: number, rest: string) => {
      client.socket.send(`{"id":${id},${rest}}`)
      return until(() => texts.find((text) => text.startsWith(`{"id":${id},`)), { what: 'the reply' })
    }
    const values = '{"a":12345678901234567890,"b":{"__proto__":{"x":1.0}, "c" : 1e2}}'
    const kept = '{"a":12345678901234567890,"b":{"__proto__":{"x":1.0}, "c" : 1e2}}'
    await raw(100, '"type":"object","object":"o","properties":["a","b"]')
    assert.equal(await raw(101, `"type":"save","sub":100,"values":${values}`), '{"id":101,"ok":true}')
    assert.equal(await raw(102, '"type":"load","sub":100'), `{"id":102,"ok":${kept}}`)
    await raw(103, '"type":"attach","queue":"q"')
    assert.equal(
      await raw(104, `"type":"set-metadata","queue":"q","values":${values}`),
      '{"id":104,"ok":true}',
    )
    assert.equal(await raw(105, '"type":"metadata","queue":"q"'), `{"id":105,"ok":${kept}}`)
    assert.equal(
      await raw(106, '"type":"metadata","queue":"q","name":"a"'),
      '{"id":106,"ok":12345678901234567890}',
    )
    for (const [id, name] of [
      [107, '__proto__'],
      [108, '\\u005f_proto__'],
    ] as const) {
      assert.match(await raw(id, `"type":"save","sub":100,"values":{"${name}":{}}`), /400.*invalid message/)
      assert.match(
        await raw(id + 10, `"type":"set-metadata","queue":"q","values":{"${name}":{}}`),
        /400.*invalid message/,
      )
    }
  },
)
