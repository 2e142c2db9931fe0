// One holder of tokens cannot take all streams, sockets and watches of a gateway.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway, type GatewayOptions } from '../../src/gateway/index.ts'
import { MemoryQueueStore } from '../../src/index.ts'
import { MAX_WAITED_COMMANDS } from '../../src/queue/internal.ts'
import { EventClient } from '../support/event-client.ts'
import { assertProblem, type GatewayServer, serve } from '../support/gateway.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { SocketClient } from '../support/socket-client.ts'
import { until } from '../support/wait.ts'

const TOKENS = [
  { token: 'ann-1', name: 'ann', scopes: ['admin'] },
  { token: 'ann-2', name: 'ann', scopes: ['read'] },
  { token: 'bob', scopes: ['read'] },
] as const

/** Each of two holders may have two streams and two sockets. */
const BOUNDS = { maxStreams: 8, maxSockets: 8 }

async function open(options: GatewayOptions = {}): Promise<GatewayServer & AsyncDisposable> {
  const server = await serve(createGateway({ tokens: TOKENS, ...BOUNDS, ...options }))
  return { ...server, [Symbol.asyncDispose]: () => server.close() }
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

test('shares - a holder of tokens has a quarter of the streams, by whichever token or session', async () => {
  await using server = await open()
  const path = '/overview/events'
  const listen = (token: string) => EventClient.open(server.url + path, bearer(token))
  const clients = await Promise.all(['ann-1', 'ann-2'].map(listen))
  const refused = await server.call('GET', path, { token: 'ann-1' })
  assertProblem(refused, 429, 'too many streams')
  assert.equal(refused.headers.get('retry-after'), '1')
  const session = await server.call('POST', '/session', {
    body: JSON.stringify({ token: 'ann-2' }),
    headers: { origin: server.url },
  })
  const cookie = session.headers.get('set-cookie')?.split(';', 1)[0] ?? ''
  assertProblem(await server.call('GET', path, { headers: { cookie } }), 429, 'too many streams')
  const bob = await listen('bob')
  clients[0]?.close()
  await until(async () => (await server.call('GET', path, { token: 'ann-2' })).status === 200, {
    what: 'a place to be free',
  })
  for (const client of [...clients, bob]) client.close()
})

test('shares - and a quarter of the sockets, whether the token is in the header or in the first message', async () => {
  await using server = await open()
  await using first = await SocketClient.open(server, { headers: bearer('ann-1') })
  await using second = await SocketClient.open(server)
  await second.call('hello', { token: 'ann-2' })
  await assert.rejects(SocketClient.open(server, { headers: bearer('ann-1') }), /429/)
  await using third = await SocketClient.open(server)
  await assert.rejects(third.call('hello', { token: 'ann-1' }), /429 too many sockets/)
  await using bob = await SocketClient.open(server, { headers: bearer('bob') })
  await bob.call('ping')
  // Another token of the same holder is no further socket.
  await second.call('hello', { token: 'ann-1' })
  first.socket.terminate()
  await until(
    async () => {
      await using again = await SocketClient.open(server)
      return await again.call('hello', { token: 'ann-1' }).then(
        () => true,
        () => false,
      )
    },
    { what: 'a place to be free' },
  )
})

test('shares - and a quarter of the queues that are watched, by sockets and event streams', async () => {
  await using server = await open({ maxStreams: 10_000 })
  await using ann = await SocketClient.open(server, { headers: bearer('ann-1') })
  await using bob = await SocketClient.open(server, { headers: bearer('bob') })
  const watch = (client: SocketClient, n: number) => client.call('watch', { queue: `q${n}` })
  for (let n = 0; n < 125; n++) await watch(ann, n)
  await assert.rejects(watch(ann, 125), /429 too many watches/)
  assertProblem(await server.call('GET', '/events?queue=q125', { token: 'ann-2' }), 429, 'too many watches')
  // What she watches already costs her nothing more; what another one watches does.
  await watch(ann, 0)
  await watch(bob, 125)
  await assert.rejects(watch(ann, 125), /429 too many watches/)
  ann.socket.terminate()
  await using again = await SocketClient.open(server, { headers: bearer('ann-1') })
  await until(
    () =>
      watch(again, 126).then(
        () => true,
        () => false,
      ),
    { what: 'places to be free' },
  )
})

test('shares - a queue that is watched is of the share of each holder that watches it, while he does', async () => {
  const clock = new ManualClock()
  const queueOptions = { store: new MemoryQueueStore({ clock }) }
  await using server = await open({ maxStreams: 10_000, clock, queueOptions })
  await using bob = await SocketClient.open(server, { headers: bearer('bob') })
  const watch = (n: number) => bob.call('watch', { queue: `q${n}` })
  const listen = (n: number, token: string) =>
    EventClient.open(`${server.url}/events?queue=q${n}`, bearer(token))
  // Ann begins them, and leaves them to bob: by a feed that they share, and by a watch.
  const anns = await Promise.all(Array.from({ length: 125 }, (_, n) => listen(n, 'ann-1')))
  const refused = await server.call('GET', '/events?queue=q125', { token: 'ann-2' })
  assertProblem(refused, 429, 'too many watches')
  const bobs = await Promise.all(Array.from({ length: 60 }, (_, n) => listen(n, 'bob')))
  for (let n = 60; n < 125; n++) await watch(n)
  await assert.rejects(watch(125), /429 too many watches/)
  for (const client of anns) client.close()
  // She has no more those that bob listens to. Nobody listens to the other feeds: they are hers for 30 s.
  for (let n = 125; n < 185; n++) {
    const open = () => server.call('GET', `/events?queue=q${n}`, { token: 'ann-2' })
    await until(async () => (await open()).status === 200, { what: `ann to watch q${n}` })
  }
  assertProblem(await server.call('GET', '/events?queue=q185', { token: 'ann-2' }), 429, 'too many watches')
  // One of hers costs nothing more.
  assert.equal((await server.call('GET', '/events?queue=q184', { token: 'ann-1' })).status, 200)
  await clock.pass(31_000)
  assert.equal((await server.call('GET', '/events?queue=q185', { token: 'ann-2' })).status, 200)
  await assert.rejects(watch(125), /429 too many watches/, 'bob has his own still')
  for (const client of bobs) client.close()
  await until(
    () =>
      watch(125).then(
        () => true,
        () => clock.pass(31_000).then(() => false),
      ),
    { what: 'bob to have room' },
  )
})

test('shares - and a quarter of the commands whose jobs are wanted, by requests and sockets', async () => {
  const tokens = [...TOKENS, { token: 'carl', scopes: ['work'] }] as const
  await using server = await open({ tokens })
  const { gateway } = server
  const take = (token: string, command: string, wait: string, signal?: AbortSignal) => {
    const url = `http://localhost/q/jobs?command=${command}&wait=${wait}`
    return gateway.fetch(new Request(url, { headers: bearer(token), signal: signal ?? null }))
  }
  const most = MAX_WAITED_COMMANDS / 4
  const clients = Array.from({ length: most }, () => new AbortController())
  const waits = clients.map(({ signal }, n) => take('ann-1', `c${n}`, '60', signal))
  const refused = await server.call('GET', '/q/jobs?command=other&wait=60', { token: 'ann-1' })
  assertProblem(refused, 429, 'too many commands')
  assert.equal(refused.headers.get('retry-after'), '1')
  await using ann = await SocketClient.open(server, { headers: bearer('ann-1') })
  const wanted = ann.call('take', { queue: 'jobs', command: 'other', wait: 1_000 })
  await assert.rejects(wanted, /429 too many commands/)
  const { id } = ann.send('work', { queue: 'jobs', command: 'other' })
  const { problem } = await ann.take((push) => push.sub === id)
  assert.equal((problem as { error: string }).error, 'too many commands')
  // A command that is wanted already costs nothing more, and others have a share of their own.
  assert.equal((await take('ann-1', 'c0', '10ms')).status, 404)
  assert.equal((await take('carl', 'other', '10ms')).status, 404)
  for (const client of clients) client.abort()
  await Promise.all(waits)
  assert.equal((await take('ann-1', 'other', '0')).status, 404)
})

test('shares - a command that is waited for is of the share of each holder that waits for it', async () => {
  const tokens = [...TOKENS, { token: 'carl', scopes: ['work'] }] as const
  await using server = await open({ tokens })
  const most = MAX_WAITED_COMMANDS / 4
  const take = (token: string, command: string, signal: AbortSignal | null) =>
    server.gateway.fetch(
      new Request(`http://localhost/q/jobs?command=${command}&wait=${signal ? '60' : '10ms'}`, {
        headers: bearer(token),
        signal,
      }),
    )
  const wait = (token: string) => {
    const clients = Array.from({ length: most }, () => new AbortController())
    const waits = clients.map(({ signal }, n) => take(token, `c${n}`, signal))
    return async () => {
      for (const client of clients) client.abort()
      await Promise.all(waits)
    }
  }
  const leaveAnn = wait('ann-1')
  const leaveCarl = wait('carl')
  assert.equal((await take('carl', 'other', null)).status, 429)
  await leaveAnn()
  assert.equal((await take('ann-1', 'other', null)).status, 404)
  assert.equal((await take('carl', 'other', null)).status, 429)
  await leaveCarl()
  assert.equal((await take('carl', 'other', null)).status, 404)
})

test('shares - with one holder, or without tokens, the bound of all is the only one', async () => {
  for (const tokens of [undefined, TOKENS.slice(0, 2)]) {
    await using server = await open({ tokens })
    const path = '/overview/events'
    const clients = await Promise.all(
      Array.from({ length: 8 }, () => EventClient.open(server.url + path, tokens ? bearer('ann-1') : {})),
    )
    assertProblem(await server.call('GET', path, { token: 'ann-2' }), 503, 'overloaded')
    for (const client of clients) client.close()
  }
})
