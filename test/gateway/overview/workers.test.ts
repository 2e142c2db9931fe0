// Workers that name themselves: as in presque, and the same whichever gateway is asked.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KnownWorkers, MAX_WORKERS_PER_QUEUE, SILENT_MS } from '../../../src/gateway/clients/known-workers.ts'
import { namedWorkers } from '../../../src/gateway/overview/worker-views.ts'
import { assertProblem, type GatewayServer, onBothWorlds } from '../../support/gateway.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { until } from '../../support/wait.ts'
import { answerWhen } from './support.ts'

const as = (id: string) => ({ 'x-presque-workerid': id })

interface WorkerAnswer {
  worker_id: string
  processed: number
  failed: number
  started_at: number
}

const worker = (server: GatewayServer, id: string, has: (json: WorkerAnswer) => boolean) =>
  answerWhen<WorkerAnswer>(server, `/w/?worker_id=${id}`, has)

onBothWorlds('workers - they sign on, are counted, and sign off; gateways agree', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const library = w.queue('dig')
  library.process('sift', () => 1)
  for (const [server, id] of [
    [one, 'a'],
    [other, 'b'],
  ] as const)
    assert.equal((await server.call('POST', '/w/dig', { headers: as(id) })).status, 201)
  const ids = await answerWhen<string[]>(one, '/w/', (json) => json.length === 3)
  assert.ok(ids.includes('a') && ids.includes('b'), 'the third is a process with a handler')
  const before = await worker(other, 'a', () => true)
  assert.deepEqual({ ...before, started_at: 0 }, { worker_id: 'a', processed: 0, failed: 0, started_at: 0 })
  assert.ok(Math.abs(before.started_at - Date.now() / 1000) < 60)
  for (const body of ['1', '2', '3']) await one.call('POST', '/q/dig', { body })
  // Taken for good, put back as failed, and under a lease at the other gateway.
  assert.equal((await one.call('GET', '/q/dig', { headers: as('a') })).text, '1')
  assert.equal((await one.call('PUT', '/q/dig', { body: '1', headers: as('a') })).status, 201)
  const taken = await other.call('GET', '/q/dig?lease=30', { headers: as('a') })
  const lease = { 'x-lease': taken.headers.get('x-lease') ?? '' }
  assert.equal(
    (await one.call('PUT', '/q/dig?failed', { body: '"no"', headers: { ...as('a'), ...lease } })).status,
    204,
  )
  const counts = await worker(other, 'a', ({ processed, failed }) => processed === 2 && failed === 2)
  assert.equal(counts.started_at, before.started_at)
  await one.call('POST', '/w/dig', { headers: as('a') })
  assert.equal((await worker(one, 'a', () => true)).processed, 2, 'its counts stay')
  const queue = await answerWhen<Record<string, unknown>>(one, '/w/?queue_name=dig', () => true)
  assert.deepEqual(Object.keys(queue), ['queue_name', 'workers_list', 'processed', 'failed'])
  assert.deepEqual([queue['queue_name'], queue['processed'], queue['failed']], ['dig', 2, 2])
  assert.equal((queue['workers_list'] as string[]).length, 3)
  assert.equal((await other.call('DELETE', '/w/dig', { headers: as('a') })).status, 204)
  for (const server of [one, other])
    await answerWhen<string[]>(server, '/w/', (json) => json.length === 2 && json.includes('b'))
  assertProblem(await one.call('GET', '/w/?worker_id=a'), 404, 'no such worker')
  // It comes again, and counts anew.
  await other.call('POST', '/w/dig', { headers: as('a') })
  await answerWhen<string[]>(one, '/w', (json) => json.includes('a'))
})

onBothWorlds('workers - a failure that is told again, at any gateway, counts once', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  await one.call('POST', '/q/dig?attempts=2', { body: '1' })
  for (const server of [one, other]) {
    const taken = await server.call('GET', '/q/dig?lease=30&wait=20', { headers: as('a') })
    const told = { headers: as('a'), lease: taken.headers.get('x-lease') ?? '', body: '"no"' }
    for (const again of [one, other, one])
      assert.equal((await again.call('PUT', '/q/dig?failed', told)).status, 204)
  }
  const counts = await worker(one, 'a', ({ processed }) => processed === 2)
  assert.equal(counts.failed, 2)
})

onBothWorlds('workers - what goes back is not counted as processed', async (w) => {
  const server = await w.open()
  await server.call('POST', '/q/dig', { body: '1' })
  const countsOf = async () => {
    const queue = (await server.call('GET', '/j/dig')).json as Record<string, number>
    const workers = (await server.call('GET', '/w/?queue_name=dig')).json as Record<string, number>
    const { queues } = (await server.call('GET', '/stats/')).json as { queues: Record<string, number>[] }
    return [queue['job_processed'], workers['processed'], queues[0]?.['job_processed']]
  }
  const isBack = () =>
    until(async () => ((await server.call('GET', '/j/dig')).json as { job_count: number }).job_count === 1, {
      what: 'the job to be back',
    })
  // Clients that are gone before their answer was sent: for good, and under a lease.
  for (const query of ['', '?lease=30']) {
    const headers = { 'x-presque-workerid': 'a' }
    const response = await server.gateway.fetch(new Request(`http://localhost/q/dig${query}`, { headers }))
    assert.equal(response.status, 200)
    await response.body?.cancel()
    await isBack()
  }
  const taken = await server.call('GET', '/q/dig?lease=30', { headers: as('a') })
  const lease = taken.headers.get('x-lease') ?? ''
  assert.equal((await server.call('PUT', '/q/dig?again', { lease })).status, 204)
  assert.deepEqual(await countsOf(), [0, 0, 0])
  assert.equal((await server.call('GET', '/q/dig', { headers: as('a') })).text, '1')
  await until(async () => (await countsOf()).every((count) => count === 1), { what: 'it to count' })
})

onBothWorlds(
  'workers - a job that a worker gives back, at any gateway, is not processed by it',
  async (w) => {
    const [one, other] = [await w.open(), await w.open()]
    await one.call('POST', '/q/dig', { body: '1' })
    for (const server of [one, other]) {
      const taken = await one.call('GET', '/q/dig?lease=30&wait=20', { headers: as('a') })
      const lease = taken.headers.get('x-lease') ?? ''
      // The second one is a repetition, and counts no more.
      for (let n = 0; n < 2; n++)
        assert.equal((await server.call('PUT', '/q/dig?again', { headers: as('a'), lease })).status, 204)
      await worker(other, 'a', ({ processed }) => processed === 0)
    }
    const taken = await one.call('GET', '/q/dig?lease=30&wait=20', { headers: as('a') })
    const lease = taken.headers.get('x-lease') ?? ''
    assert.equal((await other.call('PUT', '/q/dig', { headers: as('a'), lease, body: '1' })).status, 204)
    await worker(other, 'a', ({ processed }) => processed === 1)
    // It is over: nothing goes back.
    assert.equal((await one.call('PUT', '/q/dig?again', { headers: as('a'), lease })).status, 409)
    assert.equal((await worker(other, 'a', () => true)).processed, 1)
  },
)

onBothWorlds('workers - what is wrong is refused', async (w) => {
  const server = await w.open()
  assertProblem(await server.call('POST', '/w/dig'), 400, 'worker_id is missing')
  assertProblem(await server.call('DELETE', '/w/dig'), 400, 'worker_id is missing')
  assertProblem(
    await server.call('POST', '/w/dig', { headers: as('x'.repeat(257)) }),
    400,
    'invalid worker id',
  )
  assertProblem(
    await server.call('GET', '/q/dig', { headers: as('x'.repeat(257)) }),
    400,
    'invalid worker id',
  )
  assertProblem(await server.call('GET', '/w/?worker_id=a&queue_name=b'), 400, 'invalid parameter')
  assertProblem(await server.call('GET', '/w/?worker_id=nobody'), 404, 'no such worker')
})

test('workers - one that is silent is gone, and one that waits is not', async () => {
  const clock = new ManualClock()
  const workers = new KnownWorkers(clock)
  const ids = () => [...workers.census('p')].map((item) => ('id' in item ? item.id : ''))
  const worker = workers.seen('q', 'waits')
  assert(worker)
  const waiting = workers.waits(
    worker,
    () => new Promise<void>((resolve) => clock.after(2 * SILENT_MS, resolve)),
  )
  workers.seen('q', 'silent')
  clock.advance(SILENT_MS)
  assert.deepEqual(ids(), ['waits', 'silent'])
  clock.advance(1)
  assert.deepEqual(ids(), ['waits'])
  clock.advance(SILENT_MS)
  await waiting
  assert.deepEqual(ids(), ['waits'], 'it was seen when its wait ended')
  clock.advance(SILENT_MS + 1)
  assert.deepEqual(ids(), [])
})

test('workers - there are at most so many of a queue, until some are silent', () => {
  const clock = new ManualClock()
  const workers = new KnownWorkers(clock)
  for (let index = 0; index < MAX_WORKERS_PER_QUEUE; index++) assert.ok(workers.seen('q', `w${index}`))
  assert.equal(workers.seen('q', 'one more'), undefined)
  assert.ok(workers.seen('q', 'w0'), 'one that is known')
  assert.ok(workers.seen('other', 'one more'))
  clock.advance(SILENT_MS + 1)
  assert.ok(workers.seen('q', 'one more'))
  assert.equal([...workers.census('p')].length, 1)
})

test('workers - what another gateway has seen before a worker signed off does not count', () => {
  const place = { process: 'p', host: 'h', pid: 1, since: 0 }
  const seen = (silent: number) => ({
    ...place,
    item: {
      ...({ kind: 'worker', prefix: 'p', queue: 'q', command: 'job', id: 'a' } as const),
      ...{ taken: 1, returned: 0, failed: 0, age: 9_000, silent, waiting: 0 },
    },
  })
  const gone = { ...place, item: { kind: 'gone', prefix: 'p', queue: 'q', id: 'a', age: 1_000 } as const }
  const empty = { workers: [], services: [], locker: [], complete: true }
  const found = (...gateway: (ReturnType<typeof seen> | typeof gone)[]) =>
    namedWorkers({ ...empty, gateway }, 'p').map(({ taken }) => taken)
  assert.deepEqual(found(seen(2_000), seen(3_000)), [2])
  assert.deepEqual(found(gone, seen(2_000)), [])
  assert.deepEqual(found(seen(2_000), gone, seen(500)), [1])
})
