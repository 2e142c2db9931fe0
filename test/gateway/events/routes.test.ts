// GET /events, GET /j/:queue/:id/events: over HTTP and Fetch, in memory and on Redis.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CookieSessions, SESSION_SECONDS } from '../../../src/gateway/dashboard/cookie-sessions.ts'
import { createGateway } from '../../../src/gateway/index.ts'
import { EventClient, EventParser } from '../../support/event-client.ts'
import { assertProblem, type GatewayServer, onBothWorlds, serve } from '../../support/gateway.ts'
import { setup } from '../../support/setup.ts'
import { took, until } from '../../support/wait.ts'

interface Told {
  queue?: string
  id: string
  state?: string
  progress?: unknown
  result?: unknown
  failure?: { message: string }
  missed?: number | null
  attempt?: number
}

function told({ data }: { data: string }): Told {
  return JSON.parse(data)
}

/** A client of a route. */
function listen(
  { url }: GatewayServer,
  path: string,
  headers: Record<string, string> = {},
): Promise<EventClient> {
  return EventClient.open(url + path, headers)
}

/** Reads a stream of the Fetch handler until `enough`. */
async function fetched(
  { gateway }: GatewayServer,
  path: string,
  enough: (parser: EventParser) => boolean,
): Promise<EventParser> {
  const leaving = new AbortController()
  const request = new Request(`http://localhost${path}`, { signal: leaving.signal })
  const response = await gateway.fetch(request)
  assert.equal(response.headers.get('content-type'), 'text/event-stream')
  assert.equal(response.headers.get('cache-control'), 'no-store')
  assert.equal(response.headers.get('x-accel-buffering'), 'no')
  const parser = new EventParser()
  const reader = response.body?.getReader()
  while (!enough(parser)) {
    const part = await reader?.read()
    if (!part || part.done) break
    parser.add(part.value)
  }
  leaving.abort()
  return parser
}

onBothWorlds('events - the feed of a queue tells what happens to its jobs, in order', async (w) => {
  const server = await w.open()
  const queue = w.queue('mails')
  queue.process('job', () => 'sent')
  await queue.ready()
  const client = await listen(server, '/events?queue=mails')
  assert.deepEqual(
    ['content-type', 'cache-control', 'x-accel-buffering'].map((name) => client.headers[name]),
    ['text/event-stream', 'no-store', 'no'],
  )
  for (let n = 0; n < 20; n++) await server.call('POST', '/q/mails?wait=10', { body: String(n) })
  await until(() => client.events.filter(({ event }) => event === 'completed').length === 20, {
    what: 'all events',
  })
  const ids = [...new Set(client.events.map((event) => told(event).id))]
  assert.equal(ids.length, 20)
  for (const id of ids) {
    const events = client.events.filter((event) => told(event).id === id)
    assert.deepEqual(events.map(({ event }) => event).sort(), ['active', 'completed', 'submitted'])
    assert.ok(events.every((event) => told(event).queue === 'mails'))
  }
  assert.equal(new Set(client.events.map(({ id }) => id)).size, client.events.length, 'ids differ')
})

onBothWorlds('events - a job of another queue is told to the feed of all alone', async (w) => {
  const server = await w.open()
  await server.call('POST', '/q/one', { body: '1' })
  await server.call('POST', '/q/two', { body: '1' })
  const [all, one] = [await listen(server, '/events'), await listen(server, '/events?queue=one')]
  await server.call('POST', '/q/two', { body: '2' })
  await server.call('POST', '/q/one', { body: '2' })
  await until(() => all.events.filter(({ event }) => event === 'submitted').length === 2, {
    what: 'both jobs',
  })
  assert.deepEqual(
    all.events
      .filter(({ event }) => event === 'submitted')
      .map((event) => told(event).queue)
      .sort(),
    ['one', 'two'],
  )
  await one.next()
  assert.deepEqual(
    one.events.map((event) => told(event).queue),
    ['one'],
  )
})

onBothWorlds('events - one watch serves all clients of a queue, and goes with the last', async (w) => {
  const server = await w.open()
  const clients = await Promise.all(Array.from({ length: 20 }, () => listen(server, '/events?queue=mails')))
  const announced = w.t && String(await w.t.server.call('CLIENT', 'LIST'))
  if (announced) assert.ok(announced.split('\n').length < 12, 'no connection for each client')
  await server.call('POST', '/q/mails', { body: '1' })
  for (const client of clients) assert.equal((await client.next()).event, 'submitted')
  for (const client of clients) client.close()
})

onBothWorlds('events - a client that reconnects gets what it has missed, exactly once', async (w) => {
  const server = await w.open()
  const first = await listen(server, '/events?queue=mails')
  for (let n = 0; n < 5; n++) await server.call('POST', '/q/mails', { body: String(n) })
  const seen = [await first.next(), await first.next()]
  first.close()
  for (let n = 0; n < 5; n++) await server.call('POST', '/q/mails', { body: String(n) })
  const again = await listen(server, '/events?queue=mails', { 'last-event-id': seen[1]?.id ?? '' })
  for (let n = 0; n < 8; n++) seen.push(await again.next())
  assert.deepEqual(
    seen.map(({ event }) => event),
    Array(10).fill('submitted'),
  )
  assert.equal(new Set(seen.map((event) => told(event).id)).size, 10)
  // At another gateway the ids are others: it says so.
  const other = await w.open()
  const elsewhere = await listen(other, '/events?queue=mails', { 'last-event-id': seen[1]?.id ?? '' })
  const gap = await elsewhere.next()
  assert.deepEqual([gap.event, told(gap).missed], ['gap', null])
  for (const id of ['x', '-1', `${seen[0]?.id}9`, ' ', '\u00e9']) {
    const client = await listen(server, '/events?queue=mails', { 'last-event-id': id })
    assert.equal((await client.next()).event, 'gap', id)
  }
})

onBothWorlds('events - of a job: its state, progress and outcome, then the stream ends', async (w) => {
  const server = await w.open()
  const posted = (await server.call('POST', '/q/mails', { body: '{ "to": "you\\nme" }' })).json as {
    id: string
  }
  const clients = await Promise.all([1, 2].map(() => listen(server, `/j/mails/${posted.id}/events`)))
  const overFetch = fetched(
    server,
    `/j/mails/${posted.id}/events`,
    ({ events }) => events.at(-1)?.event === 'end',
  )
  for (const client of clients) {
    const first = await client.next()
    assert.deepEqual([first.event, told(first).state], ['state', 'waiting'])
  }
  const taken = await server.call('GET', '/q/mails?lease=30')
  const lease = { 'x-lease': taken.headers.get('x-lease') ?? '' }
  await until(() => clients.every(({ events }) => events.some((event) => told(event).state === 'active')), {
    what: 'it to be active',
  })
  await server.call('PATCH', '/q/mails', { headers: lease, body: '{ "progress": "half\\r\\ndata: x" }' })
  await until(() => clients.every(({ events }) => events.some(({ event }) => event === 'progress')), {
    what: 'its progress',
  })
  // Raw line ends in the result, which is kept byte for byte.
  await server.call('PUT', '/q/mails', { headers: lease, body: '{\n"sent":\r1.0}' })
  for (const client of clients) {
    assert.equal(await client.ended(), 'complete')
    const progress = client.events.find(({ event }) => event === 'progress')
    assert.equal(JSON.parse(progress?.data ?? ''), 'half\r\ndata: x')
    const last = client.events.at(-1)
    assert.ok(last)
    assert.deepEqual(
      [last.event, last.id, told(last).state, told(last).result],
      ['end', 'end', 'completed', { sent: 1 }],
    )
    assert.match(last.data, /1\.0/)
    assert.equal(client.events.filter(({ event }) => event === 'end').length, 1)
  }
  assert.equal((await overFetch).events.at(-1)?.event, 'end')
  // It has finished: its outcome comes at once.
  const late = await listen(server, `/j/mails/${posted.id}/events`)
  assert.equal(await late.ended(), 'complete')
  assert.deepEqual(
    late.events.map(({ event }) => event),
    ['end'],
  )
  const seen = await server.call('GET', `/j/mails/${posted.id}/events`, {
    headers: { 'last-event-id': 'end' },
  })
  assert.equal(seen.status, 204, 'a browser does not reconnect')
})

onBothWorlds(
  'events - of a job: the lines of its log, by whichever kind of worker, before its end',
  async (w) => {
    const server = await w.open()
    // It hears of watchers from now on.
    const queue = w.queue('mails')
    await queue.ready()
    const linesOf = ({ events }: { events: readonly { event: string; data: string }[] }) =>
      events.filter(({ event }) => event === 'log').flatMap(({ data }) => JSON.parse(data).lines as string[])
    const posted = (await server.call('POST', '/q/mails', { body: '1' })).json as { id: string }
    const client = await listen(server, `/j/mails/${posted.id}/events`)
    const taken = await server.call('GET', '/q/mails?lease=30')
    const lease = taken.headers.get('x-lease') ?? ''
    const log = (lines: unknown) =>
      server.call('PATCH', '/q/mails', { lease, body: JSON.stringify({ log: lines }) })
    assert.equal((await log('one\nline')).status, 200)
    assert.equal((await log(['two', 'three'])).status, 200)
    await until(() => linesOf(client).length === 3, { what: 'the lines' })
    // Of many, the last ones that one message has room for.
    await log(Array.from({ length: 20 }, (_, n) => `${n} ${'é'.repeat(5_000)}`))
    await until(() => client.events.filter(({ event }) => event === 'log').length === 3, { what: 'the last' })
    const { lines, skipped } = JSON.parse(
      client.events.findLast(({ event }) => event === 'log')?.data ?? '',
    ) as { lines: string[]; skipped: number }
    assert.ok(lines.length > 2 && lines.length + skipped === 20, `${lines.length} ${skipped}`)
    assert.match(lines.at(-1) ?? '', /^19 é+$/)
    await server.call('PUT', '/q/mails', { lease, body: '1' })
    assert.equal(await client.ended(), 'complete')
    assert.deepEqual(linesOf(client).slice(0, 3), ['one\nline', 'two', 'three'])
    // It is over: nothing is logged, and nothing told.
    await log('late')
    const other = (await server.call('POST', '/q/mails', { body: '2' })).json as { id: string }
    const second = await listen(server, `/j/mails/${other.id}/events`)
    queue.process('job', (_, job) => {
      job.log('four')
      job.log('five')
      return 1
    })
    assert.equal(await second.ended(), 'complete')
    assert.deepEqual(linesOf(second), ['four', 'five'])
  },
)

onBothWorlds('events - of a job that fails, is cancelled, or is removed', async (w) => {
  const server = await w.open()
  const post = async () => ((await server.call('POST', '/q/mails', { body: '1' })).json as { id: string }).id
  const [failing, cancelled, removed] = [await post(), await post(), await post()]
  const [one, two, three] = await Promise.all(
    [failing, cancelled, removed].map((id) => listen(server, `/j/mails/${id}/events`)),
  )
  assert.ok(one && two && three)
  await Promise.all([one, two, three].map((client) => client.next()))
  const taken = await server.call('GET', '/q/mails?lease=30')
  assert.equal(taken.headers.get('x-job-id'), failing)
  await server.call('PUT', '/q/mails?failed', {
    headers: { 'x-lease': taken.headers.get('x-lease') ?? '' },
    body: '"broken"',
  })
  await server.call('POST', `/j/mails/${cancelled}/cancel`)
  await server.call('DELETE', `/j/mails/${removed}`)
  for (const client of [one, two, three]) assert.equal(await client.ended(), 'complete')
  const ends = [one, two, three].map(({ events }) => told(events.at(-1) ?? { data: '{}' }))
  assert.deepEqual(
    ends.map(({ state }) => state),
    ['failed', 'failed', 'removed'],
  )
  assert.equal(ends[0]?.failure?.message, 'broken')
  assertProblem(await server.call('GET', '/j/mails/nobody/events'), 404, 'no such job')
})

onBothWorlds(
  'events - the gateway closes: streams end with a time to reconnect, not at the end of the grace',
  async (w) => {
    const server = await w.open()
    const { id } = (await server.call('POST', '/q/mails', { body: '1' })).json as { id: string }
    const clients = await Promise.all(
      ['/events', '/events?queue=mails', `/j/mails/${id}/events`].map((path) => listen(server, path)),
    )
    const since = performance.now()
    const closing = server.gateway.close({ grace: 60_000 })
    for (const client of clients) {
      assert.equal(await client.ended(), 'complete')
      assert.equal(client.parser.retry, 1_000)
      assert.ok(!client.events.some(({ event }) => event === 'end' || event === 'error'))
    }
    await closing
    assert.ok(performance.now() - since < 30_000)
  },
)

onBothWorlds('events - HEAD, the cap, and parameters', async (w) => {
  const server = await w.open({ maxStreams: 2 })
  for (let n = 0; n < 5; n++) {
    const head = await server.call('HEAD', '/events?queue=mails')
    assert.deepEqual([head.status, head.text], [200, ''])
  }
  const one = await listen(server, '/events')
  await listen(server, '/events?queue=mails')
  const refused = await server.call('GET', '/events?queue=mails')
  assertProblem(refused, 503, 'overloaded')
  assert.equal(refused.headers.get('retry-after'), '1')
  one.close()
  await until(
    async () => {
      const client = await listen(server, '/events')
      return client.status === 200
    },
    { what: 'a place' },
  )
  assertProblem(await server.call('GET', '/events?queue=%00'), 400, 'invalid parameter')
  assertProblem(await server.call('GET', '/events?queues=a'), 400, 'invalid parameter')
  assertProblem(await server.call('GET', '/j/%00/1/events'), 400, 'invalid queue name')
})

test('events - a stream ends with the session that opened it', async () => {
  const grant = { token: 'secret', scopes: ['read'] } as const
  const server = await serve(createGateway({ redis: null, tokens: [grant], heartbeat: 100 }))
  try {
    const begun = Date.now() - SESSION_SECONDS * 1000 + 3_000
    const session = new CookieSessions([grant]).start(grant, begun)
    const cookie = `soloflight-session-${server.port}=${session}`
    const client = await listen(server, '/events', { cookie })
    assert.equal(client.status, 200)
    const byToken = await listen(server, '/events', { authorization: 'Bearer secret' })
    assert.equal(await client.ended(), 'complete')
    assertProblem(await server.call('GET', '/events', { headers: { cookie } }), 401, 'token required')
    byToken.close()
    assert.equal(await byToken.ended(), 'cut', 'it was open')
  } finally {
    await server.close()
  }
})

test('events - Redis is killed and comes back: the feed goes on, and says that events may be lost', async () => {
  await using t = await setup()
  const server = await serve(createGateway({ redis: t.redis, queueOptions: { unavailableAfter: 500 } }))
  try {
    const client = await listen(server, '/events?queue=mails')
    await server.call('POST', '/q/mails', { body: '1' })
    assert.equal((await client.next()).event, 'submitted')
    await t.server.kill()
    assertProblem(await server.call('GET', `/j/mails/${'x'.repeat(22)}/events`), 503, 'store is unavailable')
    const ms = await took(async () =>
      assertProblem(await server.call('GET', '/events?queue=new'), 503, 'store is unavailable'),
    )
    assert.ok(ms < 5_000, `it took ${ms} ms`)
    await t.server.restart()
    const gap = await client.next()
    assert.deepEqual([gap.event, told(gap).missed], ['gap', null])
    await until(async () => (await server.call('POST', '/q/mails', { body: '2' })).status === 201, {
      what: 'Redis',
    })
    await until(() => client.events.some(({ event }, at) => at > 1 && event === 'submitted'), {
      what: 'the next event',
    })
  } finally {
    await server.close()
  }
})

test('events - Redis is killed and comes back empty: the stream of a job goes on, and tells that it is gone', async () => {
  await using t = await setup()
  const server = await serve(
    createGateway({ redis: t.redis, queueOptions: { unavailableAfter: 500, lease: 1_000 } }),
  )
  try {
    const { id } = (await server.call('POST', '/q/mails', { body: '1' })).json as { id: string }
    const client = await listen(server, `/j/mails/${id}/events`)
    await client.next()
    await t.server.kill()
    await t.server.restart()
    assert.equal(await client.ended(), 'complete')
    const last = client.events.at(-1)
    assert.equal(last?.event, 'end')
    assert.equal(told(last ?? { data: '{}' }).state, 'removed')
  } finally {
    await server.close()
  }
})

onBothWorlds('events - of a job under `uniq`: its stream goes on with the job that follows', async (w) => {
  const { call, ...server } = await w.open()
  const take = () => call('GET', '/q/mails?lease=30&wait=20')
  const finish = ({ headers }: { headers: Headers }, body: string) =>
    call('PUT', '/q/mails', { body, lease: headers.get('x-lease') ?? '' })
  const { id } = (await call('POST', '/q/mails?uniq=k', { body: '1' })).json as { id: string }
  const taken = await take()
  await call('POST', '/q/mails?uniq=k', { body: '2' })
  const client = await listen({ ...server, call }, `/j/mails/${id}/events`)
  await client.next()
  await finish(taken, '"one"')
  await until(() => client.events.some((event) => told(event).state === 'waiting'), { what: 'the next one' })
  await finish(await take(), '"two"')
  assert.equal(await client.ended(), 'complete')
  const last = client.events.at(-1)
  assert.ok(last)
  assert.deepEqual([last.event, told(last).result], ['end', 'two'])
  assert.equal(client.events.filter(({ event }) => event === 'end').length, 1)
})
