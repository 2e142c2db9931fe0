// A job is held under a lease: it is renewed; if that fails, or the job is cancelled, the work is told, and its result discarded.

import assert from 'node:assert/strict'
import { HttpWorker, type JobContext } from '../../src/worker/index.ts'
import { type GatewayServer, onBothWorlds } from '../support/gateway.ts'
import { HttpRelay } from '../support/http-relay.ts'
import { until } from '../support/wait.ts'

/** Short enough that a test can wait for its end. */
const LEASE = 1_000

/** A work that goes on until it is told to end, or its signal aborts. */
class Held {
  readonly contexts: JobContext[] = []
  #end: () => void = () => {}
  readonly ended: Promise<void> = new Promise((resolve) => {
    this.#end = resolve
  })

  readonly work = async (_: unknown, context: JobContext): Promise<string> => {
    this.contexts.push(context)
    const aborted = new Promise((resolve) => context.signal.addEventListener('abort', resolve))
    await Promise.race([this.ended, aborted])
    return context.signal.aborted ? 'late' : 'held'
  }

  end(): void {
    this.#end()
  }

  get codes(): unknown[] {
    return this.contexts.map(({ signal }) => (signal.reason as { code?: unknown } | undefined)?.code)
  }
}

async function post({ call }: GatewayServer, query = ''): Promise<string> {
  const { json } = await call('POST', `/q/jobs?${query}`, { body: '{}' })
  return (json as { id: string }).id
}

onBothWorlds('http worker leases - renewed for as long as the work goes on', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  const held = new Held()
  await using worker = new HttpWorker({ url: relay.url, queues: 'jobs', lease: LEASE, work: held.work })
  await worker.start()
  const id = await post(gateway)
  // Each comes a third of a lease after the one before.
  await until(() => relay.count('PATCH') >= 7, { what: 'renewals over two leases', timeout: 20_000 })
  held.end()
  const { state, stalls, result } = (await gateway.call('GET', `/j/jobs/${id}?wait=20`)).json as Record<
    string,
    unknown
  >
  assert.deepEqual([state, stalls, result], ['completed', 0, 'held'])
  assert.equal(held.contexts.length, 1)
})

onBothWorlds(
  'http worker leases - kept although one gateway hangs: the next one renews in time',
  async (world) => {
    const [one, other] = [await world.open(), await world.open()]
    await using hanging = await HttpRelay.start(one.url)
    await using relay = await HttpRelay.start(other.url)
    hanging.fate = ({ method }) => (method === 'PATCH' ? 'hang' : 'pass')
    const held = new Held()
    const url = [hanging.url, relay.url]
    await using worker = new HttpWorker({ url, queues: 'jobs', lease: 3 * LEASE, work: held.work })
    await worker.start()
    const id = await post(one)
    await until(() => held.contexts[0]?.signal.aborted || relay.count('PATCH') >= 4, {
      what: 'renewals over a lease',
      timeout: 20_000,
    })
    assert.equal(hanging.count('PATCH'), 1)
    held.end()
    const { state, stalls, result } = (await one.call('GET', `/j/jobs/${id}?wait=20`)).json as Record<
      string,
      unknown
    >
    assert.deepEqual([state, stalls, result], ['completed', 0, 'held'])
    await until(() => worker.stats().completed === 1, { what: 'the count' })
    assert.equal(worker.stats().lost, 0)
  },
)

onBothWorlds('http worker leases - lost, the work is told, and another worker has the job', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  const [cut, other] = [new Held(), new Held()]
  // The answer comes at once, so the worker knows when the lease ends.
  const id = await post(gateway)
  await using first = new HttpWorker({ url: relay.url, queues: 'jobs', lease: 3 * LEASE, work: cut.work })
  await first.start()
  await until(() => cut.contexts.length === 1, { what: 'the first work' })
  relay.fate = () => 'hang'
  let codes: unknown[] = []
  await using second = new HttpWorker({
    ...{ url: gateway.url, queues: 'jobs', lease: LEASE },
    work: (job, context) => {
      // Nobody answers the first one: its own clock ends the lease before.
      codes = cut.codes
      return other.work(job, context)
    },
  })
  await second.start()
  await until(() => other.contexts.length === 1, { what: 'the other work', timeout: 20_000 })
  assert.deepEqual(codes, ['E_LEASE_LOST'])
  assert.equal(other.contexts[0]?.id, id)
  relay.fate = () => 'pass'
  other.end()
  const { result, stalls } = (await gateway.call('GET', `/j/jobs/${id}?wait=20`)).json as Record<
    string,
    unknown
  >
  assert.deepEqual([result, stalls], ['held', 1])
  assert.equal(first.stats().lost, 1)
  assert.equal(relay.count('PUT'), 0, 'a result of a lost job was told')
})

onBothWorlds('http worker leases - lost by many jobs while their renewals hang', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  const held = new Held()
  const options = { url: relay.url, queues: 'jobs', lease: LEASE, concurrency: 60, timeout: 60_000 }
  await using worker = new HttpWorker({ ...options, work: held.work })
  // No renewal is answered. Timers fire a little early now and then.
  relay.fate = ({ method }) => (method === 'PATCH' ? 'hang' : 'pass')
  await worker.start()
  const jobs = Array.from({ length: 60 }, (_, n) => n)
  assert.equal((await gateway.call('POST', '/qb/jobs', { body: JSON.stringify({ jobs }) })).status, 201)
  await until(() => held.contexts.length >= 60, { what: 'all to run' })
  const first = held.contexts.slice(0, 60)
  await until(() => first.every(({ signal }) => signal.aborted), { what: 'all to be told' })
  held.end()
  relay.fate = () => 'pass'
})

onBothWorlds('http worker leases - a renewal that hangs does not delay the result', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  relay.fate = ({ method }) => (method === 'PATCH' ? 'hang' : 'pass')
  const work = async () => {
    await until(() => relay.count('PATCH') === 1, { what: 'the renewal' })
    return 'done'
  }
  const options = { url: relay.url, queues: 'jobs', lease: 3 * LEASE, timeout: 60_000 }
  await using worker = new HttpWorker({ ...options, work })
  await worker.start()
  assert.equal((await gateway.call('POST', '/q/jobs?wait=20', { body: '1' })).text, '"done"')
  await until(() => worker.stats().completed === 1, { what: 'the count' })
  assert.equal(worker.stats().lost, 0)
})

onBothWorlds('http worker leases - a cancelled job aborts its work', async (world) => {
  const gateway = await world.open()
  const held = new Held()
  await using worker = new HttpWorker({ url: gateway.url, queues: 'jobs', lease: LEASE, work: held.work })
  await worker.start()
  const id = await post(gateway)
  await until(() => held.contexts.length === 1, { what: 'the work' })
  assert.equal((await gateway.call('POST', `/j/jobs/${id}/cancel`)).status, 200)
  await until(() => held.contexts[0]?.signal.aborted, { what: 'the signal' })
  assert.deepEqual(held.codes, ['E_ABORTED'])
  await until(() => worker.stats().lost === 1, { what: 'the count' })
  // The worker goes on.
  held.end()
  assert.equal((await gateway.call('POST', '/q/jobs?wait=20', { body: '1' })).text, '"held"')
})

onBothWorlds(
  'http worker leases - an end that was accepted is no loss, whatever a renewal says then',
  async (world) => {
    const gateway = await world.open()
    await using relay = await HttpRelay.start(gateway.url)
    await using worker = new HttpWorker({ url: relay.url, queues: 'jobs', lease: LEASE, work: () => 'done' })
    await worker.start()
    // The answers to its end are lost until a renewal was answered: that the job has ended.
    const isRenewed = () => relay.requests.some(({ method, status }) => method === 'PATCH' && status === 200)
    relay.fate = ({ method }) => (method === 'PUT' && !isRenewed() ? 'lose' : 'pass')
    const id = await post(gateway)
    await until(() => worker.stats().completed + worker.stats().lost === 1, {
      what: 'the end',
      timeout: 20_000,
    })
    assert.deepEqual([worker.stats().completed, worker.stats().lost], [1, 0])
    const { result } = (await gateway.call('GET', `/j/jobs/${id}`)).json as Record<string, unknown>
    assert.equal(result, 'done')
  },
)

onBothWorlds('http worker leases - a job that ends while its lease is over is not told', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  const held = new Held()
  await using worker = new HttpWorker({ url: relay.url, queues: 'jobs', lease: LEASE, work: held.work })
  await worker.start()
  const id = await post(gateway)
  await until(() => held.contexts.length === 1, { what: 'the work' })
  // The renewal is answered by another server's refusal, which may pass, until the lease is over.
  relay.fate = ({ method }) => (method === 'PATCH' ? { status: 403 } : 'pass')
  await until(() => held.contexts[0]?.signal.aborted, { what: 'the loss', timeout: 20_000 })
  assert.deepEqual(held.codes, ['E_LEASE_LOST'])
  relay.fate = () => 'pass'
  held.end()
  // It takes the job again when the gateway has ended the lease.
  const { result, stalls } = (await gateway.call('GET', `/j/jobs/${id}?wait=20`)).json as Record<
    string,
    unknown
  >
  assert.deepEqual([result, stalls, held.contexts.length], ['held', 1, 2])
})
