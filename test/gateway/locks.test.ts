import assert from 'node:assert/strict'
import { request } from 'node:http'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { MemoryQueueStore, MemoryStore } from '../../src/index.ts'
import { assertProblem, type GatewayServer, onBothWorlds, serve } from '../support/gateway.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { until } from '../support/wait.ts'

/** Claims a key that is free. Returns its lease. */
async function claim({ call }: GatewayServer, key: string, query = ''): Promise<string> {
  const { status, json, headers, text } = await call('POST', `/locks/${key}/claim${query}`)
  const claimed = json as { status: string; lease: string }
  assert.deepEqual([status, claimed.status], [200, 'locked'], text)
  assert.equal(headers.get('x-lease'), claimed.lease)
  return claimed.lease
}

/** What `GET /locks/:key` answers. */
interface KeyState {
  key: string
  status: string
  lock?: { left: number; parked: number }
  value?: { ttl: number; age: number }
}

async function peek({ call }: GatewayServer, key: string): Promise<KeyState> {
  return (await call('GET', `/locks/${key}`)).json as KeyState
}

/** The seconds that are left of the lease of `key`. */
async function left(server: GatewayServer): Promise<number> {
  return (await peek(server, 'key')).lock?.left ?? assert.fail('the key is free')
}

async function parked(server: GatewayServer, key: string, count = 1): Promise<void> {
  const isParked = async () => (await peek(server, key)).lock?.parked === count
  await until(isParked, { what: `${count} to be parked on ${key}` })
}

onBothWorlds('locks - one client claims, all get what it publishes, byte for byte', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await claim(one, 'key', '?lease=30')
  const waits = [
    other.call('POST', '/locks/key/claim?wait=20'),
    other.call('GET', '/locks/key/wait?wait=20'),
    one.call('POST', '/locks/key/wait?wait=20'),
  ]
  await parked(one, 'key', 3)
  const body = '{ "n": 1.0, "big": 9007199254740993, "n": [ ] }'
  const published = await other.call('PUT', '/locks/key?ttl=60', { lease, body })
  assert.deepEqual([published.status, published.text], [204, ''])
  for (const { status, text } of await Promise.all(waits))
    assert.deepEqual([status, text], [200, `{"status":"done","result":${body}}`])
  assert.equal((await one.call('POST', '/locks/key/claim')).text, `{"status":"done","result":${body}}`)
})

onBothWorlds('locks - the state of a key, in seconds', async (w) => {
  const one = await w.open()
  assert.deepEqual(await peek(one, 'a%2Fb%20c'), { key: 'a/b c', status: 'free' })
  const lease = await claim(one, 'a%2Fb%20c', '?lease=30')
  const held = await peek(one, 'a%2Fb%20c')
  assert.equal(held.status, 'locked')
  assert.ok(held.lock && held.lock.left > 20 && held.lock.left <= 30, `${held.lock?.left}`)
  await one.call('PUT', '/locks/a%2Fb%20c?ttl=60s', { lease, body: '1' })
  const { status, value } = await peek(one, 'a%2Fb%20c')
  assert.equal(status, 'done')
  assert.ok(value && value.ttl > 50 && value.ttl <= 60 && value.age < 5, JSON.stringify(value))
})

onBothWorlds('locks - a claim that does not wait is told that the key is locked', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  await claim(one, 'key', '?lease=30')
  assertProblem(await other.call('POST', '/locks/key/claim'), 423, 'locked')
  assertProblem(await other.call('POST', '/locks/key/claim?wait=1'), 423, 'locked')
  assertProblem(await other.call('GET', '/locks/key/wait?wait=10ms'), 504, 'timeout')
  assertProblem(await other.call('GET', '/locks/nobody/wait'), 504, 'timeout')
})

/** Gateways on one clock, which stands still: nothing ends by time. */
async function servedAt(clock: ManualClock, count: number): Promise<GatewayServer[]> {
  const store = new MemoryStore({ clock })
  const one = () =>
    createGateway({
      clock,
      lockerOptions: { store },
      queueOptions: { store: new MemoryQueueStore({ clock }) },
    })
  return Promise.all(Array.from({ length: count }, () => serve(one())))
}

test('locks - a wait without `wait` is answered at once', async () => {
  const clock = new ManualClock()
  const servers = await servedAt(clock, 2)
  try {
    const [one, other] = servers as [GatewayServer, GatewayServer]
    const ask = () => other.call('GET', '/locks/key/wait')
    assertProblem(await ask(), 504, 'timeout')
    const lease = await claim(one, 'key', '?lease=30')
    assertProblem(await ask(), 504, 'timeout')
    assert.equal((await peek(one, 'key')).lock?.parked, 0, 'nobody is left')
    // Another one waits in the same gateway, for as long as it said.
    const waiting = other.call('GET', '/locks/key/wait?wait=500ms')
    await parked(one, 'key')
    assertProblem(await ask(), 504, 'timeout')
    await parked(one, 'key')
    await clock.advance(501)
    assertProblem(await waiting, 504, 'timeout')
    await one.call('PUT', '/locks/key?ttl=60', { lease, body: '[1.0]' })
    assert.equal((await ask()).text, '{"status":"done","result":[1.0]}')
    const failing = await claim(one, 'failing', '?lease=30')
    await one.call('POST', '/locks/failing/fail?ttl=60', { lease: failing, body: '"no"' })
    assertProblem(await other.call('GET', '/locks/failing/wait'), 500, 'remote')
  } finally {
    await Promise.all(servers.map((server) => server.close()))
  }
})

test('locks - of claims that do not wait, those that come too late are told so at once', async () => {
  const clock = new ManualClock()
  const servers = await servedAt(clock, 2)
  try {
    const all = servers.flatMap((server) =>
      Array.from({ length: 5 }, () => server.fetch('POST', '/locks/key/claim')),
    )
    const statuses = (await Promise.all(all)).map(({ status }) => status)
    assert.deepEqual(statuses.toSorted(), [200, ...Array(9).fill(423)])
    const [server] = servers as [GatewayServer]
    assert.equal((await peek(server, 'key')).lock?.parked, 0, 'nobody is left')
    // Another one waits in the same gateway.
    const waiting = server.call('POST', '/locks/key/claim?wait=20')
    await parked(server, 'key')
    assertProblem(await server.call('POST', '/locks/key/claim'), 423, 'locked')
    await parked(server, 'key')
    await clock.advance(20_001)
    assertProblem(await waiting, 423, 'locked')
  } finally {
    await Promise.all(servers.map((server) => server.close()))
  }
})

onBothWorlds('locks - a failure reaches those that wait', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await claim(one, 'key', '?lease=30')
  const wait = other.call('GET', '/locks/key/wait?wait=20')
  await parked(one, 'key')
  const reason = '{"message":"no such user","code":"ENOUSER","user":7}'
  assert.equal((await other.call('POST', '/locks/key/fail', { lease, body: reason })).status, 204)
  const reply = await wait
  assertProblem(reply, 500, 'remote')
  const { failure } = reply.json as { failure: Record<string, unknown> }
  const { message, code, fields } = failure
  assert.deepEqual([message, code, fields], ['no such user', 'ENOUSER', { user: 7 }])
})

onBothWorlds('locks - a release lets the next claim in', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await claim(one, 'key', '?lease=30')
  const next = claim(other, 'key', '?wait=20')
  await parked(one, 'key')
  assert.equal((await one.call('POST', '/locks/key/release', { lease })).status, 204)
  assert.notEqual(await next, lease)
  assertProblem(await one.call('PUT', '/locks/key', { lease, body: '1' }), 409, 'lease lost')
})

onBothWorlds('locks - a lease runs out although the gateway lives, and the next claim gets it', async (w) => {
  const one = await w.open()
  const lease = await claim(one, 'key', '?lease=300ms')
  const next = await claim(one, 'key', '?wait=20')
  assert.notEqual(next, lease)
  const late = { lease, body: '"late"' }
  assertProblem(await one.call('PUT', '/locks/key', late), 409, 'lease lost')
  assertProblem(await one.call('POST', '/locks/key/fail', late), 409, 'lease lost')
  assertProblem(await one.call('POST', '/locks/key/release', { lease }), 409, 'lease lost')
  assertProblem(await one.call('PATCH', '/locks/key', { lease, body: '{}' }), 409, 'lease lost')
})

onBothWorlds('locks - any gateway renews, as long as the client asks', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await claim(one, 'key', '?lease=5')
  const body = '{"progress":{"done":0.5}}'
  const renewed = await other.call('PATCH', '/locks/key?lease=60', { lease, body })
  assert.deepEqual([renewed.status, renewed.json], [200, { left: 60 }])
  assert.ok((await left(one)) > 50)
  assert.deepEqual((await other.call('PATCH', '/locks/key', { lease })).json, { left: 5 })
  assert.ok((await left(one)) <= 5)
})

onBothWorlds('locks - a gateway closes: its leases stay, its claims that wait are answered', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await claim(one, 'key', '?lease=30')
  const wait = one.call('POST', '/locks/key/claim?wait=30')
  await parked(other, 'key')
  await one.gateway.close({ grace: 0 })
  assertProblem(await wait, 423, 'locked')
  assert.equal((await other.call('PUT', '/locks/key', { lease, body: '"kept"' })).status, 204)
  assert.equal((await other.call('GET', '/locks/key/wait')).text, '{"status":"done","result":"kept"}')
})

onBothWorlds('locks - a client that hangs up while it waits is granted nothing', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await claim(one, 'key', '?lease=30')
  const gone = request(`${other.url}/locks/key/claim?lease=60&wait=30`, { method: 'POST' })
  gone.on('error', () => {})
  gone.end()
  await parked(one, 'key')
  gone.destroy()
  await parked(one, 'key', 0)
  await one.call('POST', '/locks/key/release', { lease })
  assert.equal((await peek(one, 'key')).status, 'free')
})

onBothWorlds('locks - a lease whose client is gone before it is told goes back at once', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const hangUp = new AbortController()
  const url = 'http://localhost/locks/key/claim?lease=60'
  const answer = await one.gateway.fetch(new Request(url, { method: 'POST', signal: hangUp.signal }))
  assert.equal(answer.status, 200)
  assert.equal((await peek(other, 'key')).status, 'locked')
  hangUp.abort()
  const isFree = async () => (await peek(other, 'key')).status === 'free'
  await until(isFree, { what: 'the key to be free' })
})

onBothWorlds('locks - forged and misplaced leases are refused', async (w) => {
  const one = await w.open()
  const lease = await claim(one, 'key', '?lease=30')
  const text = Buffer.from(lease, 'base64url').toString()
  const forged = Buffer.from(`${'A'.repeat(44)}${text.slice(44)}`).toString('base64url')
  const ends = [
    ['PUT', '', '1'],
    ['POST', '/fail', '"reason"'],
    ['POST', '/release', undefined],
    ['PATCH', '', '{}'],
  ] as const
  for (const [method, path, body] of ends) {
    const ask = (key: string, token?: string) =>
      one.call(method, `/locks/${key}${path}`, {
        ...(body === undefined ? {} : { body }),
        ...(token === undefined ? {} : { lease: token }),
      })
    assertProblem(await ask('key'), 400, 'lease is missing')
    assertProblem(await ask('key', 'nonsense'), 400, 'invalid lease')
    assertProblem(await ask('key', 'x'.repeat(8000)), 400, 'invalid lease')
    assertProblem(await ask('other', lease), 400, 'invalid lease')
    assertProblem(await ask('key', forged), 409, 'lease lost')
  }
  assert.equal((await peek(one, 'key')).status, 'locked')
})

onBothWorlds('locks - hostile requests get a defined answer, and leave the lease as it was', async (w) => {
  const one = await w.open({ maxBody: 10_000 })
  const lease = await claim(one, 'key', '?lease=30')
  const put = (body: string, query = '') => one.call('PUT', `/locks/key${query}`, { lease, body })
  assertProblem(await put(''), 400, 'result is missing')
  assertProblem(await put('{"a":'), 400, 'invalid json')
  assertProblem(await put('['.repeat(5000) + ']'.repeat(5000)), 400, 'json is too deep')
  assertProblem(await put('1'.repeat(10_001)), 413, 'body is too large')
  for (const ttl of ['-1', '1e9', 'NaN', '', '0x10', '999999999999999d'])
    assertProblem(await put('1', `?ttl=${ttl}`), 400, 'invalid parameter')
  assertProblem(await put('1', '?tll=1'), 400, 'invalid parameter')
  assertProblem(await one.call('POST', '/locks/other/claim?lease=10ms'), 400, 'invalid parameter')
  assertProblem(await one.call('POST', `/locks/${'k'.repeat(1025)}/claim`), 400, 'invalid parameter')
  assertProblem(await one.call('POST', '/locks/%ff/claim'), 400, 'invalid path')
  assertProblem(await one.call('POST', '/locks//claim'), 404, 'no such route')
  assertProblem(await one.call('PATCH', '/locks/key', { lease, body: '[1]' }), 400, 'invalid json')
  assertProblem(await one.call('PATCH', '/locks/key', { lease, body: '{"log":1}' }), 400, 'invalid json')
  for (const key of ['__proto__', '%F0%9F%90%BB', '%00', '..%2F..%2Fetc', 'a%3Fb%23c']) {
    const token = await claim(one, key, '?lease=30')
    assert.equal((await one.call('PUT', `/locks/${key}`, { lease: token, body: 'null' })).status, 204)
  }
  assert.equal((await put('"still held"')).status, 204)
})

onBothWorlds('locks - reading needs `read`, holding needs `work`', async (w) => {
  const tokens = [
    { token: 'reader', scopes: ['read'] },
    { token: 'worker', scopes: ['work'] },
  ] as const
  const one = await w.open({ tokens })
  const statuses = async (method: string, path: string) =>
    Promise.all(
      ['reader', 'worker', 'nobody'].map(async (token) => (await one.call(method, path, { token })).status),
    )
  assert.deepEqual(await statuses('GET', '/locks/key'), [200, 403, 401])
  assert.deepEqual(await statuses('GET', '/locks/key/wait'), [504, 403, 401])
  assert.deepEqual(await statuses('PUT', '/locks/key'), [403, 400, 401])
  assert.deepEqual(await statuses('PATCH', '/locks/key'), [403, 400, 401])
  assert.deepEqual(await statuses('POST', '/locks/key/fail'), [403, 400, 401])
  assert.deepEqual(await statuses('POST', '/locks/key/release'), [403, 400, 401])
  assert.deepEqual(await statuses('POST', '/locks/key/claim'), [403, 200, 401])
})

test('locks - a page of another site claims nothing', async () => {
  await using gateway = createGateway()
  const url = 'http://localhost/locks/key/claim'
  const foreign = new Request(url, { method: 'POST', headers: { origin: 'http://evil.example' } })
  assert.equal((await gateway.fetch(foreign)).status, 403)
  const state = await gateway.fetch(new Request('http://localhost/locks/key'))
  assert.deepEqual(await state.json(), { key: 'key', status: 'free' })
})
