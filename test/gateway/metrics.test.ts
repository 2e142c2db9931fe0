// What /metrics tells, and what it costs.

import assert from 'node:assert/strict'
import { register } from 'prom-client'
import { EventClient } from '../support/event-client.ts'
import { type GatewayServer, onBothWorlds } from '../support/gateway.ts'
import { answer, PushReceiver } from '../support/receiver.ts'
import { SocketClient } from '../support/socket-client.ts'
import { until } from '../support/wait.ts'

async function scrape({ call }: Pick<GatewayServer, 'call'>): Promise<string[]> {
  const { status, headers, text } = await call('GET', '/metrics')
  assert.equal(status, 200, text)
  assert.equal(headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  return text.split('\n')
}

function has(lines: readonly string[], ...wanted: readonly string[]): void {
  for (const line of wanted) assert.ok(lines.includes(line), `${line}\n\n${lines.join('\n')}`)
}

onBothWorlds('metrics - a queue is told by state, with its totals, age and pause', async (world) => {
  const gateway = await world.open()
  for (const body of ['1', '2', '3']) await gateway.call('POST', '/q/mails', { body })
  await gateway.call('POST', '/q/mails?delay=60', { body: '4' })
  const taken = await gateway.call('GET', '/q/mails?lease=60')
  assert.equal(taken.status, 200)
  const ended = await gateway.call('GET', '/q/mails?lease=60')
  const headers = { 'x-lease': ended.headers.get('x-lease') ?? '' }
  assert.equal((await gateway.call('PUT', '/q/mails', { headers, body: '"ok"' })).status, 204)
  await gateway.call('POST', '/control/mails', { body: '{"status":"stop"}' })
  await until(async () => (await scrape(gateway)).includes('soloflight_queues 1'), { what: 'the register' })
  const lines = await scrape(gateway)
  has(
    lines,
    'soloflight_store_up 1',
    'soloflight_queues_left_out 0',
    'soloflight_queue_jobs{queue="mails",state="waiting"} 1',
    'soloflight_queue_jobs{queue="mails",state="delayed"} 1',
    'soloflight_queue_jobs{queue="mails",state="running"} 1',
    'soloflight_queue_jobs{queue="mails",state="failed"} 0',
    'soloflight_queue_jobs_total{queue="mails",event="submitted"} 4',
    'soloflight_queue_jobs_total{queue="mails",event="completed"} 1',
    'soloflight_queue_jobs_total{queue="mails",event="failed"} 0',
    'soloflight_queue_jobs_total{queue="mails",event="taken"} 2',
    'soloflight_queue_paused{queue="mails"} 1',
    '# TYPE soloflight_queue_jobs_total counter',
  )
  const ageIn = (text: readonly string[]) =>
    Number(
      text.find((line) => line.startsWith('soloflight_queue_oldest_seconds{queue="mails"}'))?.split(' ')[1],
    )
  await until(async () => ageIn(await scrape(gateway)) > 0, { what: 'the next job to have an age' })
  assert.ok(ageIn(lines) < 60)
})

onBothWorlds(
  'metrics - requests are told by the pattern of their route; no key, no payload',
  async (world) => {
    const gateway = await world.open()
    await scrape(gateway)
    await gateway.call('POST', '/q/jobs?uniq=a-secret-key', { body: '"a secret payload"' })
    await gateway.call('GET', '/locks/a-secret-key')
    await gateway.call('GET', '/j/jobs/a-secret-id')
    await gateway.call('GET', '/a-secret-path')
    await gateway.call('GET', '/%ff')
    await gateway.fetch('SECRET', '/q/jobs')
    const lines = await scrape(gateway)
    const count = (route: string, method: string, status: number) =>
      `soloflight_http_request_duration_seconds_count{route="${route}",method="${method}",status="${status}"} `
    has(
      lines,
      `${count('/q/:queue', 'POST', 201)}1`,
      `${count('/locks/:key', 'GET', 200)}1`,
      `${count('/j/:queue/:id', 'GET', 404)}1`,
      `${count('none', 'GET', 404)}1`,
      `${count('none', 'GET', 400)}1`,
      `${count('none', 'other', 405)}1`,
    )
    assert.ok(!lines.join().toLowerCase().includes('secret'))
  },
)

onBothWorlds('metrics - requests that wait are counted while they wait', async (world) => {
  const gateway = await world.open()
  const wait = new AbortController()
  const polls = [1, 2, 3].map(() =>
    gateway.call('GET', '/q/jobs?wait=60', { signal: wait.signal }).catch(() => {}),
  )
  const shows = (count: number) =>
    until(async () => (await scrape(gateway)).includes(`soloflight_waiting_requests ${count}`), {
      what: `${count} requests to wait`,
    })
  await shows(3)
  wait.abort()
  await Promise.all(polls)
  await shows(0)
})

onBothWorlds(
  'metrics - push workers by outcome, and the streams and sockets that are open',
  async (world) => {
    await using receiver = await PushReceiver.start((response, { body }, index) => {
      const status = body === '"bad"' ? 422 : body === '"later"' && index < 3 ? 503 : 200
      if (body !== '"held"') answer(status, '1')(response)
    })
    const push = [{ queue: 'jobs', url: receiver.url, allowInternal: true, backoff: 1, attempts: 3 }]
    const gateway = await world.open({ push })
    const { call } = gateway
    const post = (body: string) => call('POST', '/q/jobs?wait=20', { body })
    for (const body of ['"ok"', '"bad"']) await post(body)
    assert.equal((await post('"later"')).status, 200)
    void post('"held"').catch(() => {})
    await using _ = await SocketClient.open(gateway)
    const stream = await EventClient.open(`${gateway.url}/overview/events`)
    const labels = 'queue="jobs",command="job"'
    await until(async () => (await scrape(gateway)).includes(`soloflight_push_running{${labels}} 1`), {
      what: 'a request to run',
    })
    const total = (outcome: string) => `soloflight_push_attempts_total{${labels},outcome="${outcome}"}`
    has(
      await scrape(gateway),
      ...[`${total('completed')} 2`, `${total('failed')} 1`, `${total('retried')} 1`, `${total('lost')} 0`],
      ...['soloflight_open_sockets 1', 'soloflight_open_streams 1'],
    )
    stream.close()
  },
)

onBothWorlds(
  'metrics - push workers whose receiver is ill, or silent, or whose job is cancelled',
  async (world) => {
    // It leaves all others open.
    await using receiver = await PushReceiver.start((response, { body }, index) => {
      if (body === '"ok"') answer(200, '1')(response)
      if (body === '"ill"') answer(index === 0 ? 503 : 500)(response)
    })
    const common = { queue: 'jobs', url: receiver.url, allowInternal: true, backoff: 1, attempts: 2 }
    const push = [
      { ...common, command: 'short', timeout: 200 },
      { ...common, command: 'long', timeout: 60_000 },
    ]
    const gateway = await world.open({ push })
    const { call } = gateway
    const post = (body: string, command: string) =>
      call('POST', `/q/jobs?wait=20&command=${command}`, { body })
    const figures = (command: string, outcomes: Record<string, number>, running: number) => [
      ...Object.entries(outcomes).map(
        ([outcome, count]) =>
          `soloflight_push_attempts_total{queue="jobs",command="${command}",outcome="${outcome}"} ${count}`,
      ),
      `soloflight_push_running{queue="jobs",command="${command}"} ${running}`,
    ]
    const none = { completed: 0, failed: 0, retried: 0, lost: 0 }
    has(await scrape(gateway), ...figures('short', none, 0), ...figures('long', none, 0))
    // 5xx at each attempt, then no answer at each.
    for (const body of ['"ill"', '"silent"']) assert.equal((await post(body, 'short')).status, 500)
    assert.equal(receiver.received.length, 4)
    assert.equal((await post('"ok"', 'short')).status, 200)
    const short = { completed: 1, failed: 2, retried: 2, lost: 0 }
    has(await scrape(gateway), ...figures('short', short, 0), ...figures('long', none, 0))
    const { id } = (await call('POST', '/q/jobs?command=long', { body: '"silent"' })).json as { id: string }
    await receiver.receives(6)
    has(await scrape(gateway), ...figures('long', none, 1))
    assert.equal((await call('POST', `/j/jobs/${id}/cancel`)).status, 200)
    const over = figures('long', { ...none, lost: 1 }, 0)
    await until(
      async () => {
        const lines = await scrape(gateway)
        return over.every((line) => lines.includes(line))
      },
      { what: 'the end of the request' },
    )
    has(await scrape(gateway), ...figures('short', short, 0))
  },
)

onBothWorlds(
  'metrics - the queues that were used last are told, and how many are left out',
  async (world) => {
    const gateway = await world.open()
    for (let n = 0; n < 203; n++) await gateway.call('POST', `/q/queue-${n}`, { body: '1' })
    await until(async () => (await scrape(gateway)).includes('soloflight_queues 203'), {
      what: 'the register',
    })
    const lines = await scrape(gateway)
    has(lines, 'soloflight_queues_left_out 3')
    assert.equal(lines.filter((line) => line.startsWith('soloflight_queue_paused{')).length, 200)
  },
)

onBothWorlds('metrics - a name of a queue cannot end its label', async (world) => {
  const gateway = await world.open()
  await gateway.call('POST', `/q/${encodeURIComponent('a"} 1\\')}`, { body: '1' })
  const line = 'soloflight_queue_paused{queue="a\\"} 1\\\\"} 0'
  await until(async () => (await scrape(gateway)).includes(line), { what: 'the queue' })
})

onBothWorlds(
  'metrics - each gateway has a registry of its own, and none uses the global one',
  async (world) => {
    const [one, other] = [await world.open(), await world.open()]
    await scrape(one)
    await scrape(other)
    await one.call('GET', '/healthz')
    const healthz = (lines: readonly string[]) => lines.some((line) => line.includes('/healthz'))
    assert.ok(healthz(await scrape(one)))
    assert.ok(!healthz(await scrape(other)))
    assert.deepEqual(register.getMetricsAsArray(), [])
    if (!world.t) return
    // Nothing is sent because somebody has scraped once.
    await world.t.server.resetStats()
    await one.call('GET', '/healthz')
    const stats = Object.keys(await world.t.server.commandStats())
    assert.deepEqual(
      stats.filter((name) => !/^(info|config|ping|client)/.test(name)),
      [],
    )
    await world.t.server.kill()
    await until(async () => (await scrape(one)).includes('soloflight_store_up 0'), {
      what: 'the store to be away',
    })
    assert.ok(healthz(await scrape(one)))
  },
)
