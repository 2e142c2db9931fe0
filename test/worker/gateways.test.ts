// Gateways go away, come back, refuse, and lose answers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Gateways } from '../../src/worker/gateways.ts'
import { HttpWorker } from '../../src/worker/index.ts'
import { Cli } from '../support/cli.ts'
import { type GatewayServer, onBothWorlds } from '../support/gateway.ts'
import { type Fate, HttpRelay, type RelayedRequest } from '../support/http-relay.ts'
import { freePort } from '../support/ports.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

async function outcome({ call }: Pick<GatewayServer, 'call'>, id: string): Promise<Record<string, unknown>> {
  return (await call('GET', `/j/jobs/${id}?wait=20`)).json as Record<string, unknown>
}

async function post({ call }: Pick<GatewayServer, 'call'>, body: string, query = ''): Promise<string> {
  return ((await call('POST', `/q/jobs?${query}`, { body })).json as { id: string }).id
}

/** Gives a fate to the first requests that match, one each; the others pass. */
function firstOnes(matches: (request: RelayedRequest) => boolean, ...fates: Fate[]): HttpRelay['fate'] {
  return (request) => (matches(request) ? (fates.shift() ?? 'pass') : 'pass')
}

/** Nothing is passed on to it. */
const NOWHERE = 'http://127.0.0.1:9'

const isPut = ({ method }: RelayedRequest) => method === 'PUT'

for (const [what, query, work] of [
  ['a result', '', () => 'done'],
  [
    'a failure',
    'attempts=2',
    () => {
      throw new Error('failed')
    },
  ],
] as const) {
  onBothWorlds(
    `http worker gateways - ${what} whose answer is lost is told again, and counts once`,
    async (w) => {
      const gateway = await w.open()
      const queue = w.queue('jobs')
      const events: string[] = []
      await queue.watch(({ event, command }) => {
        if (command !== 'job') events[0] = 'heard'
        else if (['completed', 'failed', 'retrying'].includes(event)) events.push(event)
      })
      const probe = async () => {
        await gateway.call('POST', '/q/jobs?command=probe', { body: '1' })
        return events.includes('heard')
      }
      await until(probe, { what: 'the gateway to know the watcher', timeout: 20_000 })
      await using relay = await HttpRelay.start(gateway.url)
      relay.fate = firstOnes(isPut, 'lose', 'drop', { status: 503, headers: { 'retry-after': '0' } })
      await using worker = new HttpWorker<unknown, string>({ url: relay.url, queues: 'jobs', work })
      await worker.start()
      const id = await post(gateway, '1', query)
      const { state, retries } = await outcome(gateway, id)
      const ends = query === '' ? ['completed'] : ['retrying', 'failed']
      assert.deepEqual([state, retries], query === '' ? ['completed', 0] : ['failed', 1])
      await until(() => events.length > ends.length, { what: 'the events' })
      await worker.stop()
      assert.deepEqual(events, ['heard', ...ends])
      const { completed, failed, dead, lost } = worker.stats()
      assert.deepEqual([completed, failed, dead, lost], query === '' ? [1, 0, 0, 0] : [0, 2, 1, 0])
      const { failed: counted } = await queue.totals()
      assert.equal(counted, query === '' ? 0 : 1)
      assert.equal(relay.count('PUT'), query === '' ? 4 : 5)
    },
  )
}

onBothWorlds('http worker gateways - the next one is used while one is away', async (world) => {
  const [first, second] = [await world.open(), await world.open()]
  const told: string[] = []
  const logger = {
    error: (text: string) => told.push(`error ${text}`),
    warn: (text: string, { url }: { url: string }) => told.push(`${text} ${url}`),
    info: () => {},
    debug: () => {},
  }
  await using worker = new HttpWorker<number, number>({
    ...{ url: [first.url, `${second.url}/`], queues: 'jobs', logger, level: 'warn' },
    async work(job) {
      // The gateway that handed the job over goes away while it runs.
      if (job === 1) await first.close()
      return job + 1
    },
  })
  await worker.start()
  for (const job of [0, 1, 2])
    assert.equal((await outcome(second, await post(second, `${job}`)))['result'], job + 1)
  assert.ok(
    told.some((line) => line === `soloflight: a gateway does not serve ${first.url}`),
    told.join(),
  )
  assert.equal(
    told.some((line) => line.startsWith('error')),
    false,
  )
  assert.deepEqual([worker.stats().completed, worker.stats().lost], [3, 0])
})

test('http worker gateways - one that was killed is waited for, and its jobs are finished when it is back', async () => {
  await using t = await setup({ port: 'free' })
  const port = `${await freePort()}`
  const serve = () => Cli.serve(['--redis', t.url, '--port', port])
  const killed = await serve()
  let isKilled = false
  await using worker = new HttpWorker<string, string>({
    ...{ url: killed.url, queues: 'jobs', timeout: 2_000 },
    async work(job) {
      if (job === 'kill') {
        await killed.kill()
        isKilled = true
      }
      return `${job} done`
    },
  })
  await worker.start()
  const waiting = killed.post('kill').catch(() => 'its connection ended')
  await until(() => isKilled, { what: 'the end of the gateway' })
  await until(() => worker.stats().asking === 0, { what: 'no request under way' })
  await using back = await serve()
  assert.equal(await waiting, 'its connection ended')
  await until(() => worker.stats().completed === 1, { what: 'the result to be accepted', timeout: 20_000 })
  assert.deepEqual(await back.post('next'), { status: 200, text: '"next done"', connection: 'keep-alive' })
  assert.equal(worker.stats().lost, 0)
})

onBothWorlds('http worker gateways - Retry-After is kept to', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  const isGet = ({ method }: RelayedRequest) => method === 'GET'
  relay.fate = firstOnes(isGet, { status: 503, headers: { 'retry-after': '2' } }, { status: 429 })
  await using worker = new HttpWorker({ url: relay.url, queues: 'jobs', work: () => 1 })
  await worker.start()
  const [first, second] = await until(
    () => {
      const gets = relay.requests.filter(isGet)
      return gets.length >= 2 && gets
    },
    { what: 'the second request', timeout: 20_000 },
  )
  assert.ok((second?.at ?? 0) - (first?.at ?? 0) >= 1_990, 'it came too early')
  assert.equal((await outcome(gateway, await post(gateway, '1')))['result'], 1)
})

for (const [what, fate] of Object.entries({
  'a connection that ends': 'drop',
  'an error of the server': { status: 500, body: 'oops' },
  'a proxy without a server': { status: 502, body: '<html>' },
} satisfies Record<string, Fate>)) {
  onBothWorlds(
    `http worker gateways - ${what} is no reason to give up, nor to ask without a pause`,
    async (w) => {
      const gateway = await w.open()
      await using relay = await HttpRelay.start(gateway.url)
      const isGet = ({ method }: RelayedRequest) => method === 'GET'
      relay.fate = firstOnes(isGet, ...Array<Fate>(4).fill(fate))
      await using worker = new HttpWorker({ url: relay.url, queues: 'jobs', concurrency: 10, work: () => 1 })
      await worker.start()
      assert.equal((await outcome(gateway, await post(gateway, '1')))['result'], 1)
      const gets = relay.requests.filter(isGet)
      // At least half of 100, 200, 400 and 800 ms.
      assert.ok((gets[4]?.at ?? 0) - (gets[0]?.at ?? 0) >= 745, 'the pauses did not grow')
    },
  )
}

onBothWorlds('http worker gateways - a refusal is told to people, and asked again later', async (world) => {
  const gateway = await world.open({ tokens: [{ token: 'right', scopes: ['work'] }] })
  await using relay = await HttpRelay.start(gateway.url)
  const told: { queue: string; refusal: string }[] = []
  const logger = {
    error: (_: string, fields: { queue: string; refusal: string }) => told.push(fields),
    ...{ warn: () => {}, info: () => {}, debug: () => {} },
  }
  await using worker = new HttpWorker({
    url: relay.url,
    queues: 'jobs',
    token: 'wrong',
    logger,
    work: () => 1,
  })
  await worker.start()
  await until(() => told.length > 0, { what: 'the refusal' })
  assert.equal(told[0]?.queue, 'jobs')
  assert.match(told[0]?.refusal ?? '', /^401/)
  assert.equal(JSON.stringify(told).includes('wrong'), false, 'the token was told')
  assert.equal(relay.count('GET'), 1)
})

onBothWorlds(
  'http worker gateways - the token and the name of the worker are sent with every request',
  async (w) => {
    const tokens = [{ token: 'abc-._~+/=', scopes: ['work', 'submit', 'read'] as const }]
    const gateway = await w.open({ tokens, basePath: '/jobs' })
    await using relay = await HttpRelay.start(gateway.url)
    await using worker = new HttpWorker({
      ...{ url: `${relay.url}/jobs/`, token: 'abc-._~+/=', queues: ['jobs', 'more'], workerId: 'me' },
      work: (_, { progress }) => progress(1),
    })
    await worker.start()
    const headers = { authorization: 'Bearer abc-._~+/=' }
    assert.equal((await gateway.call('POST', '/jobs/q/jobs?wait=20', { body: '1', headers })).status, 200)
    await worker.stop()
    assert.ok(relay.count('PUT') > 0 && relay.count('PATCH') > 0, 'a result and progress')
    for (const request of relay.requests) {
      assert.equal(request.headers.authorization, 'Bearer abc-._~+/=')
      assert.equal(request.headers['x-presque-workerid'], 'me')
    }
    const registered = relay.requests.filter(({ path }) => path.startsWith('/jobs/w/'))
    assert.deepEqual(
      registered.slice(0, 2).map(({ method, path }) => `${method} ${path}`),
      ['POST /jobs/w/jobs', 'POST /jobs/w/more'],
    )
  },
)

onBothWorlds(
  'http worker gateways - a worker is in the list of workers while it works, and counted',
  async (world) => {
    const gateway = await world.open()
    const worker = new HttpWorker({
      url: gateway.url,
      queues: ['jobs', 'more'],
      workerId: 'w1',
      work: () => 1,
    })
    await worker.start()
    assert.equal((await outcome(gateway, await post(gateway, '1')))['result'], 1)
    const list = async (query = '') => (await gateway.call('GET', `/w/${query}`)).json
    await until(
      async () => ((await list('?queue_name=more')) as { workers_list: string[] }).workers_list[0] === 'w1',
      {
        what: 'the worker in the list',
      },
    )
    assert.equal(((await list('?worker_id=w1')) as { processed: number }).processed, 1)
    await worker.stop()
    await until(async () => !((await list()) as string[]).includes('w1'), { what: 'the worker to be gone' })
  },
)

test('http worker gateways - time in which the process was blocked is not that of a gateway', async () => {
  const [turns, blocked, within] = [5, 500, 400]
  const gateways = new Gateways({
    ...{ urls: ['http://gateway.test'], token: undefined, workerId: 'w', timeout: 10_000, maxBody: 1_000 },
    async fetch(_, { signal } = {}) {
      // Work computes right after the request, which is answered some turns of the event loop behind that.
      for (const until = performance.now() + blocked; performance.now() < until; );
      for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
      signal?.throwIfAborted()
      return new Response('{}')
    },
    onAway: () => {},
    onBack: () => {},
  })
  assert.equal((await gateways.request({ method: 'PATCH', path: '/q/jobs', within })).status, 200)
  const silent = new Gateways({
    ...{ urls: ['http://gateway.test'], token: undefined, workerId: 'w', timeout: 10_000, maxBody: 1_000 },
    fetch: (_, { signal } = {}) =>
      new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason))),
    onAway: () => {},
    onBack: () => {},
  })
  await assert.rejects(
    silent.request({ method: 'PATCH', path: '/q/jobs', within }),
    /no answer within 400 ms/,
  )
})

test('http worker gateways - a redirection is not followed: the token stays where it was meant for', async () => {
  await using elsewhere = await HttpRelay.start(NOWHERE)
  await using relay = await HttpRelay.start(NOWHERE)
  relay.fate = () => ({ status: 307, headers: { location: `${elsewhere.url}/q/jobs` } })
  const told: string[] = []
  const logger = {
    error: (_: string, { refusal }: { refusal: string }) => told.push(refusal),
    ...{ warn: () => {}, info: () => {}, debug: () => {} },
  }
  await using worker = new HttpWorker({
    url: relay.url,
    queues: 'jobs',
    token: 'secret',
    logger,
    work: () => 1,
  })
  await worker.start()
  await until(() => told.length > 0, { what: 'the refusal' })
  assert.deepEqual(told, ['307'])
  assert.equal(elsewhere.requests.length, 0)
})

test('http worker gateways - a server that gives jobs without a lease gets them back', async () => {
  await using relay = await HttpRelay.start(NOWHERE)
  relay.fate = ({ method }) => (method === 'GET' ? { status: 200, body: '{"n":1}' } : { status: 201 })
  let runs = 0
  await using worker = new HttpWorker({ url: relay.url, queues: 'jobs', work: () => runs++ })
  await worker.start()
  await until(() => relay.count('PUT') === 1, { what: 'the job to be put back' })
  assert.equal(runs, 0)
})
