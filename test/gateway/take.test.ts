// Jobs are taken, for good or under a lease, finished at any gateway, and given back when the client is gone.

import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { MemoryQueueStore, RedisQueue } from '../../src/index.ts'
import {
  type Answer,
  assertProblem,
  type GatewayServer,
  type GatewayWorld,
  onBothWorlds,
} from '../support/gateway.ts'
import { until } from '../support/wait.ts'

function leaseOf({ headers }: Answer): { headers: { 'x-lease': string } } {
  return { headers: { 'x-lease': headers.get('x-lease') ?? assert.fail('no lease') } }
}

async function stateOf({ call }: GatewayServer, id: string | null): Promise<Record<string, unknown>> {
  return (await call('GET', `/j/foo/${id}`)).json as Record<string, unknown>
}

onBothWorlds('take - taken at one gateway, finished at another, the first closed', async (w) => {
  const [first, second] = [await w.open(), await w.open()]
  const waiting = second.call('POST', '/q/foo?wait=20', { body: '{"n":1}' })
  const taken = await first.call('GET', '/q/foo?wait=20&lease=20')
  await first.close()
  const renewed = await second.call('PATCH', '/q/foo', {
    ...leaseOf(taken),
    body: '{"progress":0.50,"log":["a","b"]}',
  })
  assert.deepEqual([renewed.status, renewed.text], [200, '{"left":20,"cancelled":false}'])
  const id = taken.headers.get('x-job-id')
  assert.ok((await second.call('GET', `/j/foo/${id}`)).text.includes('"progress":0.50'))
  assert.deepEqual((await second.call('GET', `/j/foo/${id}/log`)).json, { id, log: ['a', 'b'] })
  assert.equal((await second.call('PUT', '/q/foo', { ...leaseOf(taken), body: '{"sum": 1.0}' })).status, 204)
  const { status, text } = await waiting
  assert.deepEqual([status, text], [200, '{"sum": 1.0}'])
  assert.deepEqual((await second.call('PATCH', '/q/foo', leaseOf(taken))).json, { left: 0, cancelled: true })
})

onBothWorlds(
  'take - a lease that is over: the job is given to another, whose lease alone counts',
  async (w) => {
    const gateway = await w.open()
    const { call } = gateway
    await call('POST', '/q/foo', { body: '1' })
    const taken = await call('GET', '/q/foo?lease=200ms')
    const again = await call('GET', '/q/foo?wait=20&lease=30')
    assert.equal(again.headers.get('x-job-id'), taken.headers.get('x-job-id'))
    assertProblem(await call('PUT', '/q/foo', { ...leaseOf(taken), body: '"late"' }), 409, 'lease lost')
    assertProblem(
      await call('PUT', '/q/foo?failed', { ...leaseOf(taken), body: '"late"' }),
      409,
      'lease lost',
    )
    assertProblem(await call('PUT', '/q/foo?again', leaseOf(taken)), 409, 'lease lost')
    assert.equal((await stateOf(gateway, again.headers.get('x-job-id')))['stalls'], 1)
    assert.equal((await call('PUT', '/q/foo', { ...leaseOf(again), body: '"in time"' })).status, 204)
    assert.equal((await stateOf(gateway, again.headers.get('x-job-id')))['result'], 'in time')
  },
)

onBothWorlds(
  'take - a failure is retried by the attempts of the job, and then kept with its reason',
  async (w) => {
    const gateway = await w.open()
    const { call } = gateway
    const posted = (await call('POST', '/q/foo?attempts=2', { body: '1' })).json as { id: string }
    const first = await call('GET', '/q/foo?lease=30')
    assert.equal(first.headers.get('x-job-attempt'), '1')
    const reason = '{"name":"TypeError","message":"no such file","code":2,"path":"/a","__proto__":{"x":1}}'
    assert.equal((await call('PUT', '/q/foo?failed', { ...leaseOf(first), body: reason })).status, 204)
    const second = await call('GET', '/q/foo?lease=30&wait=20')
    assert.equal(second.headers.get('x-job-attempt'), '2')
    assert.equal((await call('PUT', '/q/foo?failed=1', { ...leaseOf(second), body: reason })).status, 204)
    const { state, failure } = await stateOf(gateway, posted.id)
    assert.equal(state, 'failed')
    const { fields, ...rest } = failure as { fields: Record<string, unknown> }
    assert.deepEqual(rest, { name: 'TypeError', message: 'no such file', code: 2 })
    assert.equal(fields['path'], '/a')
    assert.deepEqual((await call('POST', `/j/foo/${posted.id}/retry`)).json, {
      id: posted.id,
      response: 'retried',
    })
    const third = await call('GET', '/q/foo?lease=30&wait=20')
    assert.equal((await call('PUT', '/q/foo?failed', { ...leaseOf(third), body: '"a text"' })).status, 204)
    const fourth = await call('GET', '/q/foo?lease=30&wait=20')
    assert.equal((await call('PUT', '/q/foo?again', leaseOf(fourth))).status, 204)
    const fifth = await call('GET', '/q/foo?lease=30&wait=20')
    assert.equal(fifth.headers.get('x-job-attempt'), '2', 'what was given back does not count')
  },
)

onBothWorlds('take - a failure without a retry is the last one, whatever attempts are left', async (w) => {
  const gateway = await w.open()
  const { call } = gateway
  const { id } = (await call('POST', '/q/foo?attempts=5', { body: '1' })).json as { id: string }
  const lease = leaseOf(await call('GET', '/q/foo?lease=30'))
  const wrong = [
    ['retry=0', 'invalid parameter'],
    ['again&retry=0', 'invalid parameter'],
    ['failed&retry=no', 'invalid parameter'],
  ] as const
  for (const [query, error] of wrong)
    assertProblem(await call('PUT', `/q/foo?${query}`, { ...lease, body: '1' }), 400, error)
  for (let times = 0; times < 2; times++)
    assert.equal((await call('PUT', '/q/foo?failed&retry=0', { ...lease, body: '"no use"' })).status, 204)
  const { state, failure } = await stateOf(gateway, id)
  assert.deepEqual([state, (failure as { message: string }).message], ['failed', 'no use'])
  const other = (await call('POST', '/q/foo?attempts=5', { body: '2' })).json as { id: string }
  const again = leaseOf(await call('GET', '/q/foo?lease=30'))
  assert.equal((await call('PUT', '/q/foo?failed&retry=1', { ...again, body: '1' })).status, 204)
  assert.equal((await stateOf(gateway, other.id))['retries'], 1)
})

onBothWorlds('take - a job that was posted is there, whoever has asked for one before', async (w) => {
  const gateways = [await w.open(), await w.open()] as const
  for (let n = 0; n < 20; n++) {
    const [here, there] = n % 2 === 0 ? gateways : [gateways[1], gateways[0]]
    const empty = ['', '', '?wait=20ms', '?lease=30', '?wait=5ms&lease=30'].map((query, at) =>
      (at % 2 === 0 ? here : there).call('GET', `/q/foo${query}`),
    )
    for (const answer of await Promise.all(empty)) assertProblem(answer, 404, 'no job')
    assert.equal((await here.call('POST', '/q/foo', { body: `${n}` })).status, 201)
    const { status, text } = await there.call('GET', '/q/foo')
    assert.deepEqual([status, text], [200, `${n}`])
  }
})

onBothWorlds('take - a job that was cancelled or removed is told of at the next renewal', async (w) => {
  const { call } = await w.open()
  const { id } = (await call('POST', '/q/foo', { body: '1' })).json as { id: string }
  const taken = await call('GET', '/q/foo?lease=30')
  assert.equal((await call('POST', `/j/foo/${id}/cancel`)).status, 200)
  assert.deepEqual((await call('PATCH', '/q/foo', leaseOf(taken))).json, { left: 0, cancelled: true })
  assertProblem(await call('POST', `/j/foo/${id}/cancel`), 409, 'job has finished')
  assert.equal((await call('DELETE', `/j/foo/${id}`)).status, 204)
  for (const path of [`/j/foo/${id}/cancel`, '/j/foo/nothing/cancel', '/j/foo/nothing/retry'])
    assertProblem(await call('POST', path), 404, 'no such job')
  for (const path of ['/j/foo/nothing', '/j/foo/nothing/log'])
    assertProblem(await call('GET', path), 404, 'no such job')
  assertProblem(await call('DELETE', '/j/foo/nothing'), 404, 'no such job')
})

onBothWorlds('take - forged and foreign leases are refused', async (w) => {
  const { call } = await w.open()
  await call('POST', '/q/foo', { body: '1' })
  const { headers } = leaseOf(await call('GET', '/q/foo?lease=30'))
  const token = headers['x-lease']
  assert.match(token, /^[\w-]+\.30000$/)
  const [encoded = '', duration = ''] = token.split('.')
  const content = JSON.parse(Buffer.from(encoded, 'base64url').toString()) as unknown[]
  const forged = Buffer.from(JSON.stringify(content.with(5, 'A'.repeat(22)))).toString('base64url')
  for (const lease of [
    '',
    'x',
    encoded,
    `${encoded}.`,
    `${token}.${duration}`,
    `${encoded}.30s`,
    `.${duration}`,
    `${encoded}.0`,
    `${encoded}x.30000`,
    '..',
  ])
    assertProblem(
      await call('PUT', '/q/foo', { body: '1', headers: { 'x-lease': lease } }),
      400,
      'invalid lease',
    )
  const another = { body: '1', headers: { 'x-lease': `${forged}.${duration}` } }
  assertProblem(await call('PUT', '/q/foo', another), 409, 'lease lost')
  assertProblem(await call('PUT', '/q/bar', { body: '1', headers }), 400, 'invalid lease')
  assertProblem(await call('PATCH', '/q/foo', { body: '{}' }), 400, 'lease is missing')
  assertProblem(await call('PUT', '/q/foo?failed', { body: '1' }), 400, 'lease is missing')
  assertProblem(await call('PUT', '/q/foo?again', { body: '1' }), 400, 'lease is missing')
  assert.equal((await call('PUT', '/q/back?failed=0&again=0', { body: '1' })).status, 201)
  assertProblem(await call('PUT', '/q/foo?failed&again', { body: '1', headers }), 400, 'invalid parameter')
  for (const body of ['1', '{"lines":[]}', '{"log":1}', '{"log":[1]}'])
    assertProblem(await call('PATCH', '/q/foo', { body, headers }), 400, 'invalid json')
  assert.equal((await call('PUT', '/q/foo', { body: '1', headers })).status, 204)
})

onBothWorlds('take - a batch is leased, each item with its own lease', async (w) => {
  const { call } = await w.open()
  await call('POST', '/qb/foo', { body: '{"jobs":[1.0,2,3]}' })
  const { text, json } = await call('GET', '/qb/foo?lease=30&batch_size=2')
  const items = json as { id: string; lease: string; job: number }[]
  assert.ok(text.includes('"job":1.0}'), text)
  assert.deepEqual(
    items.map(({ job }) => job),
    [1, 2],
  )
  for (const { id, lease } of items) {
    // In JSON it is the same text as in the header.
    assert.match(lease, /^[\w-]+\.30000$/)
    assert.equal((await call('PUT', '/q/foo', { body: '"done"', headers: { 'x-lease': lease } })).status, 204)
    assert.equal(((await call('GET', `/j/foo/${id}`)).json as { result: string }).result, 'done')
  }
  assert.equal((await call('GET', '/qb/foo')).text, '[3]')
})

onBothWorlds('take - a long poll gets the job that comes, and 404 at the end of its wait', async (w) => {
  const [one, two] = [await w.open(), await w.open()]
  const polls = Array.from({ length: 20 }, () => one.call('GET', '/q/foo?wait=20'))
  await until(async () => (await w.queue('foo').counts()).waiting === 0, { what: 'the polls' })
  const posts = Array.from({ length: 20 }, (_, n) => two.call('POST', '/q/foo', { body: String(n) }))
  await Promise.all(posts)
  const texts = (await Promise.all(polls)).map(({ text }) => Number(text))
  assert.deepEqual(
    texts.sort((a, b) => a - b),
    Array.from({ length: 20 }, (_, n) => n),
  )
  assertProblem(await one.call('GET', '/q/foo?wait=50ms'), 404, 'no job')
})

/** A raw request whose client is gone as soon as it was sent, or at its first byte. */
function hangUp({ port }: GatewayServer, path: string, when: 'sent' | 'answered'): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`, () => {
        if (when === 'sent') socket.destroy()
      })
    })
    socket.on('data', () => socket.destroy())
    socket.on('error', () => {})
    socket.on('close', () => resolve())
  })
}

onBothWorlds(
  'take - a client that hangs up while it waits has taken nothing, and nothing counts',
  async (w) => {
    const gateway = await w.open()
    for (const lease of ['', '&lease=60']) {
      await Promise.all(Array.from({ length: 10 }, () => hangUp(gateway, `/q/foo?wait=30${lease}`, 'sent')))
      await gateway.call('POST', '/q/foo', { body: '1' })
      const taken = await gateway.call('GET', '/q/foo?wait=20')
      assert.deepEqual([taken.text, taken.headers.get('x-job-attempt')], ['1', '1'])
      assert.equal((await stateOf(gateway, taken.headers.get('x-job-id')))['stalls'], 0)
    }
  },
)

/** Jobs are handed over to clients that hang up at about the same moment: each is taken once, or goes back uncounted. */
async function raced(w: GatewayWorld, parameters: string): Promise<void> {
  const gateway = await w.open()
  const queue = w.queue('foo')
  for (let round = 0; round < 20; round++) {
    const { id } = (await gateway.call('POST', '/q/foo', { body: String(round) })).json as { id: string }
    await hangUp(gateway, `/q/foo?${parameters}`, 'sent')
    const settled = async () => {
      const state = (await queue.status(id))?.state
      return state === 'waiting' || state === 'completed'
    }
    await until(settled, { what: 'the job to be taken or given back' })
    const status = await queue.status(id)
    assert.deepEqual([status?.stalls, status?.retries], [0, 0])
    await queue.remove(id)
  }
}

onBothWorlds('take - a client that hangs up as the job is handed over: taken once, or given back', (w) =>
  raced(w, 'wait=20'),
)

test('take - by fetch, a body that is cancelled or never wanted gives the job back at once, uncounted', async () => {
  const store = new MemoryQueueStore()
  await using gateway = createGateway({ queueOptions: { store } })
  await using queue = new RedisQueue('foo', { store })
  const post = async () => {
    const response = await gateway.fetch(new Request('http://localhost/q/foo', { method: 'POST', body: '1' }))
    return ((await response.json()) as { id: string }).id
  }
  const id = await post()
  for (const parameters of ['', '?lease=60']) {
    const answer = await gateway.fetch(new Request(`http://localhost/q/foo${parameters}`))
    assert.equal((await queue.status(id))?.state, 'active')
    await answer.body?.cancel()
    await until(async () => (await queue.status(id))?.state === 'waiting', {
      what: 'the job to be given back',
    })
  }
  const client = new AbortController()
  await gateway.fetch(new Request('http://localhost/q/foo', { signal: client.signal }))
  client.abort()
  await until(async () => (await queue.status(id))?.state === 'waiting', { what: 'the job to be given back' })
  const gone = await gateway.fetch(new Request('http://localhost/q/foo', { signal: client.signal }))
  assert.notEqual(gone.status, 200)
  assert.equal((await queue.status(id))?.stalls, 0)
  const answer = await gateway.fetch(new Request('http://localhost/q/foo'))
  assert.equal(answer.headers.get('x-job-attempt'), '1')
  assert.equal(await answer.text(), '1')
  await until(async () => (await queue.status(id))?.state === 'completed', { what: 'the job to be taken' })
})

onBothWorlds('take - an answer that waits for another one on its connection ends with that', async (w) => {
  const gateway = await w.open()
  const { call, port } = gateway
  await call('POST', '/q/foo', { body: '1' })
  const client = connect(port, '127.0.0.1')
  const requests = ['GET /q/bar?wait=20', 'GET /q/foo'].map(
    (line) => `${line} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
  )
  client.write(requests.join(''))
  const counts = async () => (await call('GET', '/j/foo')).json as Record<string, unknown>
  await until(async () => (await counts())['running'] === 1, { what: 'the job to be taken' })
  client.destroy()
  await until(async () => (await counts())['running'] === 0, { what: 'the job to go back' })
  const again = await call('GET', '/q/foo')
  assert.deepEqual([again.text, again.headers.get('x-job-attempt')], ['1', '1'])
})

onBothWorlds('take - an end that is told again is answered alike; another end is refused', async (w) => {
  const [first, second] = [await w.open(), await w.open()]
  await first.call('POST', '/q/foo?attempts=2', { body: '1' })
  const taken = await first.call('GET', '/q/foo?lease=20')
  assert.deepEqual([taken.headers.get('x-job-attempt'), taken.headers.get('x-job-attempts')], ['1', '2'])
  for (const { call } of [first, second, first])
    assert.equal((await call('PUT', '/q/foo?failed', { ...leaseOf(taken), body: '"no"' })).status, 204)
  assertProblem(await first.call('PUT', '/q/foo?again', leaseOf(taken)), 409, 'lease lost')
  assertProblem(await first.call('PUT', '/q/foo', { ...leaseOf(taken), body: '1' }), 409, 'lease lost')
  const again = await second.call('GET', '/q/foo?lease=20')
  assert.equal(again.headers.get('x-job-attempt'), '2')
  for (const { call } of [first, second])
    assert.equal((await call('PUT', '/q/foo', { ...leaseOf(again), body: '{"n": 1.0}' })).status, 204)
  assertProblem(await first.call('PUT', '/q/foo', { ...leaseOf(again), body: '{"n": 2}' }), 409, 'lease lost')
  const { job_failed: failed } = (await first.call('GET', '/j/foo')).json as Record<string, unknown>
  assert.equal(failed, 0)
})
