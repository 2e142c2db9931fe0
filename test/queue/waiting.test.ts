// Waiting for a job: timeouts, aborts, cancellation and removal.

import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import {
  AbortedError,
  ClosedError,
  RemoteError,
  RemovedError,
  type RunningJob,
  TimeoutError,
} from '../../src/index.ts'
import { EPSILON } from '../support/lockers.ts'
import { onBothStores, outcomeOf, type QueueWorld } from '../support/stores.ts'
import { until } from '../support/wait.ts'

/** A worker whose handler ends on request, or when its signal aborts. */
function held(w: QueueWorld, options = {}) {
  const jobs: RunningJob[] = []
  const gate = pDefer<string>()
  const queue = w.open(options)
  queue.process('work', async (_, job) => {
    jobs.push(job)
    const aborted = new Promise<never>((_, reject) =>
      job.signal.addEventListener('abort', () => reject(job.signal.reason)),
    )
    return Promise.race([gate.promise, aborted])
  })
  return {
    queue,
    jobs,
    end: gate.resolve,
    running: (count = 1) => until(() => jobs.length >= count, { what: `${count} to run` }),
  }
}

/** Whether an error reports a cancelled job. */
function isCancelled(error: unknown): boolean {
  assert.ok(error instanceof RemoteError && error.remote.code === 'E_CANCELLED', `${error}`)
  return true
}

onBothStores('L1 waiting - a timeout ends the waiting, not the job', async (w) => {
  const [worker, there] = [held(w), w.open({ timeout: 200 })]
  const began = performance.now()
  await assert.rejects(there.submit('work'), TimeoutError)
  const ms = performance.now() - began
  assert.ok(ms >= 199 && ms < 200 + EPSILON, `after ${ms} ms`)
  const [first, second] = [
    there.submit('work', undefined, { timeout: 1 }),
    there.submit('work', undefined, {}),
  ]
  const rejected = [assert.rejects(first, TimeoutError), assert.rejects(second, TimeoutError)]
  const job = await there.enqueue('work', undefined, { timeout: 1 })
  assert.equal(job.disposition, 'joined')
  await assert.rejects(job.result({ timeout: 1 }), TimeoutError)
  const stays = there.submit('work', undefined, { timeout: Number.POSITIVE_INFINITY })
  await Promise.all(rejected)
  await worker.running()
  worker.end('done')
  assert.equal(await stays, 'done')
  assert.equal(await job.result(), 'done')
  assert.equal(worker.jobs.length, 1)
})

onBothStores('L1 waiting - a signal ends the waiting, not the job', async (w) => {
  const [worker, there] = [held(w), w.open()]
  const reason = new Error('enough')
  const isAborted = (error: unknown) => {
    assert.ok(error instanceof AbortedError && error.cause === reason, `${error}`)
    return true
  }
  const aborted = AbortSignal.abort(reason)
  await assert.rejects(there.submit('never', 1, { signal: aborted }), isAborted)
  await assert.rejects(there.enqueue('never', 1, { signal: aborted }), isAborted)
  assert.equal((await there.counts()).waiting, 0, 'nothing was submitted')
  const leaves = new AbortController()
  const first = there.submit('work', undefined, { signal: leaves.signal })
  const stays = there.submit('work')
  await worker.running()
  leaves.abort(reason)
  await assert.rejects(first, isAborted)
  const job = await there.enqueue('work')
  await assert.rejects(job.result({ signal: aborted }), isAborted)
  worker.end('done')
  assert.equal(await stays, 'done')
})

onBothStores('waiting - with abortUnwanted, the last who leaves ends the job', async (w) => {
  const [worker, one, other] = [held(w), w.open({ abortUnwanted: true }), w.open({ abortUnwanted: true })]
  const [first, second] = [new AbortController(), new AbortController()]
  const leaving = [
    assert.rejects(one.submit('work', 1, { signal: first.signal }), AbortedError),
    assert.rejects(one.submit('work', 1, { signal: first.signal }), AbortedError),
    assert.rejects(other.submit('work', 1, { signal: second.signal }), AbortedError),
  ]
  await worker.running()
  const [job] = worker.jobs
  assert.ok(job, 'a job')
  await until(async () => (await one.status(job.id))?.waiters === 2, { what: 'both to wait' })
  first.abort()
  await until(async () => (await one.status(job.id))?.waiters === 1, { what: 'the first to leave' })
  assert.equal(job.signal.aborted, false, 'somebody waits')
  second.abort()
  await until(() => job.signal.aborted, { what: 'the end of the job' })
  assert.ok(job.signal.reason instanceof AbortedError, `${job.signal.reason}`)
  await Promise.all(leaving)
  await until(async () => (await one.status(job.id))?.state === 'failed', { what: 'its state' })
  // A waiting job is removed as well.
  await one.pause()
  await assert.rejects(one.submit('work', 2, { timeout: 50 }), TimeoutError)
  await until(async () => (await one.counts()).waiting === 0, { what: 'nothing to wait' })
})

onBothStores('waiting - a job that somebody counts on is not ended as unwanted', async (w) => {
  const [worker, one] = [held(w), w.open()]
  const leaves = new AbortController()
  const options = { abortUnwanted: true, signal: leaves.signal }
  const left = assert.rejects(one.submit('work', 1, options), AbortedError)
  await worker.running()
  const job = await one.enqueue('work', 1)
  assert.equal(job.disposition, 'joined')
  leaves.abort()
  await left
  await until(async () => (await job.status())?.waiters === 0, { what: 'nobody to wait' })
  worker.end('done')
  assert.equal(await job.result(), 'done')
})

onBothStores('waiting - what became of a job can be read when it is over, with ttl 0 too', async (w) => {
  const [here, there] = [w.open(), w.open()]
  here.process('work', (n: number) => n * 2)
  here.process('fail', () => Promise.reject(new Error('x')))
  for (const ttl of [0, 60_000]) {
    const [done, failed] = await there.enqueueMany([
      { command: 'work', payload: ttl + 1, options: { ttl } },
      { command: 'fail', payload: ttl + 1, options: { ttl } },
    ])
    assert.ok(done && failed, 'two jobs')
    for (const job of [done, failed]) {
      await until(async () => /completed|failed/.test((await job.status())?.state ?? ''), { what: 'its end' })
    }
    assert.equal(await done.result(), (ttl + 1) * 2)
    assert.equal(await (await here.job(done.id))?.result(), (ttl + 1) * 2)
    await assert.rejects(failed.result(), { code: 'E_REMOTE', message: 'x' })
  }
  const once = await there.enqueue('work', 7, { dedupe: false })
  await until(async () => (await once.status())?.state === 'completed', { what: 'its end' })
  assert.equal(await once.result(), 14)
})

onBothStores('Q2 waiting - remove: everybody gets RemovedError, whatever the job does', async (w) => {
  const [worker, one, other] = [held(w), w.open(), w.open()]
  const submit = (payload: string, delay = 0) => [
    assert.rejects(one.submit('work', payload, { delay }), RemovedError),
    assert.rejects(other.submit('work', payload, { delay }), { code: 'E_REMOVED' }),
  ]
  const waits = [...submit('active')]
  await worker.running()
  waits.push(...submit('waiting'), ...submit('delayed', 60_000))
  for (const state of ['waiting', 'delayed', 'active'] as const) {
    const job = await until(async () => (await one.jobs(state)).jobs.find(({ waiters }) => waiters === 2), {
      what: `a job that is ${state}, and both to wait`,
    })
    assert.equal(job.payload, state)
    assert.equal(await other.remove(job.id), true)
    assert.equal(await other.remove(job.id), false)
    assert.equal(await other.cancel(job.id), false)
    assert.equal(await other.retry(job.id), false)
  }
  await Promise.all(waits)
  await until(() => worker.jobs[0]?.signal.aborted, { what: 'the signal' })
  assert.ok(worker.jobs[0]?.signal.reason instanceof AbortedError, 'its reason')
  assert.equal(worker.jobs.length, 1)
  const zero = { waiting: 0, delayed: 0, active: 0, completed: 0, failed: 0 }
  assert.deepEqual(await one.counts(), zero)
})

onBothStores(
  'waiting - remove of what is over: later submissions run anew, jobs know of no result',
  async (w) => {
    const queue = w.open()
    let runs = 0
    queue.process('work', () => ++runs)
    const job = await queue.enqueue('work')
    assert.equal(await job.result(), 1)
    assert.equal(await job.cancel(), false, 'it is over')
    assert.equal(await job.remove(), true)
    await assert.rejects(job.result(), RemovedError)
    assert.equal((await job.status())?.state, 'removed')
    assert.equal(await queue.submit('work'), 2)
    assert.equal(await job.result(), 2, 'of a later run')
  },
)

onBothStores('Q2 waiting - cancel: everybody gets E_CANCELLED, and the handler its signal', async (w) => {
  const [worker, one, other] = [held(w), w.open(), w.open()]
  const submit = (payload: string, delay = 0) => [
    assert.rejects(one.submit('work', payload, { delay, attempts: 5 }), isCancelled),
    assert.rejects(other.submit('work', payload, { delay, attempts: 5 }), isCancelled),
  ]
  const waits = [...submit('active')]
  await worker.running()
  waits.push(...submit('waiting'), ...submit('delayed', 60_000))
  for (const state of ['waiting', 'delayed', 'active'] as const) {
    const job = await until(async () => (await one.jobs(state)).jobs.find(({ waiters }) => waiters === 2), {
      what: `a job that is ${state}, and both to wait`,
    })
    assert.equal(await other.cancel(job.id), true)
    assert.equal(await other.cancel(job.id), false)
    const status = await one.status(job.id)
    assert.deepEqual([status?.state, status?.failure?.code], ['failed', 'E_CANCELLED'])
  }
  const began = performance.now()
  await until(() => worker.jobs[0]?.signal.aborted, { what: 'the signal' })
  assert.ok(performance.now() - began < EPSILON, 'by message, not with the next renewal')
  assert.ok(worker.jobs[0]?.signal.reason instanceof AbortedError, 'its reason')
  await Promise.all(waits)
  // Its slot is free again.
  worker.end('done')
  assert.equal(await one.submit('work', 'next'), 'done')
  assert.equal(worker.jobs.length, 2, 'it was not tried again')
})

onBothStores('L1 close - those who wait get ClosedError, and their jobs go on', async (w) => {
  const [worker, one, other] = [held(w), w.open(), w.open()]
  const job = await one.enqueue('work')
  const waits = [one.submit('work'), one.submit('work', 'elsewhere'), job.result()]
  const closed = waits.map((wait) => assert.rejects(wait, ClosedError))
  const stays = other.submit('work')
  await worker.running()
  await one.close()
  await Promise.all(closed)
  worker.end('done')
  assert.equal(await stays, 'done')
  assert.equal(await other.submit('work', 'elsewhere'), 'done')
})

onBothStores('close - afterwards every call is refused, and another close is the same', async (w) => {
  const queue = w.open()
  const job = await queue.enqueue('work')
  await queue.close()
  await queue.close({ grace: 0 })
  const calls: Record<string, () => Promise<unknown>> = {
    submit: () => queue.submit('work'),
    enqueue: () => queue.enqueue('work'),
    enqueueMany: () => queue.enqueueMany([{ command: 'work' }]),
    job: () => queue.job(job.id),
    status: () => job.status(),
    result: () => job.result(),
    jobs: () => queue.jobs('waiting'),
    counts: () => queue.counts(),
    pause: () => queue.pause(),
    resume: () => queue.resume(),
    paused: () => queue.paused(),
    drain: () => queue.drain(),
    retry: () => job.retry(),
    redrive: () => queue.redrive(),
    cancel: () => job.cancel(),
    remove: () => job.remove(),
    logs: () => job.logs(),
    watch: () => queue.watch(() => {}),
  }
  for (const [name, call] of Object.entries(calls)) {
    const { error } = await outcomeOf(call())
    assert.ok(error instanceof ClosedError && error.code === 'E_CLOSED', `${name}: ${error}`)
  }
  assert.throws(() => queue.process('work', () => 1), ClosedError)
  assert.equal(queue.stats().waiting, 0)
})

onBothStores('Q1 close - what runs may end within the grace, and nothing more is begun', async (w) => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const before = timers()
  const [worker, there, next] = [held(w), w.open(), w.open()]
  const first = there.submit('work', 1)
  await worker.running()
  const second = there.submit('work', 2)
  const closing = worker.queue.close({ grace: 20_000 })
  await assert.rejects(worker.queue.enqueue('work'), ClosedError)
  worker.end('done')
  await closing
  assert.equal(await first, 'done')
  assert.equal(worker.jobs.length, 1)
  next.process('work', () => 'next')
  assert.equal(await second, 'next')
  await next.close()
  // A connection has its own timers.
  if (w.kind === 'memory') assert.ok(timers() <= before, 'the rest of the grace keeps the process alive')
})

onBothStores(
  'Q3 close - a job that does not end within its grace is requeued for another worker at once',
  async (w) => {
    const [worker, there] = [held(w), w.open()]
    const jobs = await there.enqueueMany([1, 2, 3].map((payload) => ({ command: 'work', payload })))
    await until(() => worker.jobs.length > 0, { what: 'the worker to be busy' })
    const other = held(w)
    other.end('other')
    const results = Promise.all(jobs.map((job) => job.result()))
    const began = performance.now()
    await worker.queue.close({ grace: 100 })
    assert.deepEqual(await results, ['other', 'other', 'other'])
    assert.ok(performance.now() - began < 100 + EPSILON, 'no lease was waited for')
    for (const { signal } of worker.jobs) assert.ok(signal.reason instanceof ClosedError, `${signal.reason}`)
    const status = await jobs[0]?.status()
    assert.deepEqual([status?.retries, status?.stalls], [0, 0], 'neither failed nor stalled')
  },
)
