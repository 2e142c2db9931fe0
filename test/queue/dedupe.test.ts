// Which submissions are one job, and the result of the second one.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import {
  ConflictError,
  Connection,
  MemoryQueueStore,
  RemoteError,
  RemovedError,
  type SubmitOptions,
} from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import { RedisQueueStore } from '../../src/queue/store/redis/redis-store.ts'
import type { QueueStore, Submission, SubmitReply, Termination } from '../../src/queue/store/store.ts'
import { setup } from '../support/setup.ts'
import { onBothStores, type QueueWorld } from '../support/stores.ts'
import { until } from '../support/wait.ts'

/** A worker that counts its runs. Each run waits at its own gate. */
function gated(w: QueueWorld, command = 'work') {
  const runs: { payload: unknown; end(result: unknown): void; fail(error: Error): void }[] = []
  const queue = w.open()
  queue.process(command, (payload) => {
    const gate = pDefer<unknown>()
    runs.push({ payload, end: gate.resolve, fail: gate.reject })
    return gate.promise
  })
  const running = (count: number) => until(() => runs.length >= count, { what: `run ${count}` })
  return { queue, runs, running }
}

onBothStores('Q2 dedupe - submitters of one job anywhere share one run and its outcome', async (w) => {
  const { runs, running } = gated(w)
  const queues = Array.from({ length: 5 }, () => w.open())
  const page = { url: '/a', size: { w: 1, h: 2 } }
  const submitted = queues.flatMap((queue) => Array.from({ length: 20 }, () => queue.submit('work', page)))
  await running(1)
  const late = queues.map((queue) => queue.submit('work', { size: { h: 2, w: 1 }, url: '/a' }))
  const [job] = (await queues[0]?.jobs('active'))?.jobs ?? []
  await until(async () => (await queues[0]?.status(job?.id ?? ''))?.waiters === 5, {
    what: 'one place a process',
  })
  runs[0]?.end('done')
  assert.deepEqual(new Set(await Promise.all([...submitted, ...late])), new Set(['done']))
  assert.equal(runs.length, 1)
})

onBothStores('Q2 dedupe - a failure is shared too', async (w) => {
  const { runs, running } = gated(w)
  const queues = [w.open(), w.open(), w.open()]
  const submitted = queues.flatMap((queue) => [queue.submit('work'), queue.submit('work')])
  const codes = Promise.all(submitted.map((one) => one.catch((error: RemoteError) => error.remote.code)))
  await running(1)
  await until(async () => (await queues[0]?.jobs('active'))?.jobs[0]?.waiters === 3, { what: 'all to wait' })
  runs[0]?.fail(Object.assign(new Error('x'), { code: 'E_X' }))
  assert.deepEqual(await codes, Array(6).fill('E_X'))
  assert.equal(runs.length, 1)
})

onBothStores('dedupe - created, joined and cached say what became of a submission', async (w) => {
  const [one, other] = [w.open(), w.open()]
  const jobs = [
    await one.enqueue('work', [1]),
    await other.enqueue('work', [1]),
    await one.enqueue('work', [1]),
  ]
  const { runs, running } = gated(w)
  await running(1)
  jobs.push(await other.enqueue('work', [1]))
  runs[0]?.end('done')
  await jobs[0]?.result()
  jobs.push(await other.enqueue('work', [1]), await one.enqueue('work', [1]))
  assert.deepEqual(
    jobs.map((job) => job.disposition),
    ['created', 'joined', 'joined', 'joined', 'cached', 'cached'],
  )
  assert.equal(new Set(jobs.map((job) => job.id)).size, 1)
  assert.deepEqual(await Promise.all(jobs.map((job) => job.result())), Array(6).fill('done'))
  assert.equal(await other.submit('work', [1]), 'done')
  assert.equal(runs.length, 1)
})

onBothStores('dedupe - payloads are the same when their canonical JSON is', async (w) => {
  const queue = w.open()
  const idOf = async (payload: unknown) => (await queue.enqueue('same', payload)).id
  const alike: unknown[][] = [
    [{ a: 1, b: { c: 2, d: 3 } }, { b: { d: 3, c: 2 }, a: 1 }, JSON.parse('{"b":{"d":3,"c":2},"a":1}')],
    [{ n: 100 }, JSON.parse('{"n":1e2}'), JSON.parse('{"n":100.0}'), { n: 100, gone: undefined }],
    [{ n: 0 }, { n: -0 }],
    [2 ** 53, JSON.parse('9007199254740993')],
    ['\u00e9', JSON.parse('"\\u00e9"')],
    [{ 1: 'a', 10: 'b', 2: 'c' }, JSON.parse('{"10":"b","2":"c","1":"a"}')],
    [
      { '\u20ac': 1, '\r': 2, '\ufb33': 3, '😀': 4 },
      { '😀': 4, '\ufb33': 3, '\r': 2, '\u20ac': 1 },
    ],
    ...[[undefined], [null], [''], ['null'], [[]], [{}], [[null]], [0], ['0'], [false], ['e\u0301']],
    ...[[{ a: [1, 2] }], [{ a: [2, 1] }]],
  ]
  const ids = await Promise.all(alike.map((payloads) => Promise.all(payloads.map(idOf))))
  for (const [index, same] of ids.entries())
    assert.equal(new Set(same).size, 1, `${JSON.stringify(alike[index])}`)
  assert.equal(new Set(ids.flat()).size, alike.length, 'and no two others are')
})

onBothStores('dedupe - queues and commands keep apart what is alike', async (w) => {
  const targets = [
    { queue: w.open(), command: 'a' },
    { queue: w.open(), command: 'b' },
    { queue: w.open({}, 'another'), command: 'a' },
    ...(w.kind === 'redis' ? [{ queue: w.open({ prefix: 'other' }), command: 'a' }] : []),
  ]
  for (const [index, { queue, command }] of targets.entries()) queue.process(command, () => index)
  for (const [index, { queue, command }] of targets.entries()) {
    assert.equal(await queue.submit(command, 'payload'), index)
    assert.equal(await queue.submit(command, 'other', { dedupe: 'key' }), index)
  }
})

onBothStores('dedupe - a key of your own decides instead of the payload, and false runs each', async (w) => {
  const queue = w.open()
  let runs = 0
  queue.process('work', () => ++runs)
  assert.equal(await queue.submit('work', { at: 1 }, { dedupe: 'key' }), 1)
  assert.equal(await queue.submit('work', { at: 1 }, { dedupe: 'key' }), 1)
  assert.equal(await queue.submit('work', { at: 1 }, { dedupe: 'other' }), 2)
  assert.equal(await queue.submit('work', { at: 1 }), 3, 'a key is no payload')
  assert.equal(await queue.submit('work', '{"at":1}'), 4)
  assert.equal(await queue.submit('work', undefined, { dedupe: '{"at":1}' }), 5)
  const jobs = await Promise.all([1, 2, 3].map(() => queue.enqueue('work', { at: 1 }, { dedupe: false })))
  assert.deepEqual(
    jobs.map((job) => job.disposition),
    ['created', 'created', 'created'],
  )
  const results = await Promise.all(jobs.map((job) => job.result()))
  assert.deepEqual(results.sort(), [6, 7, 8])
})

onBothStores('dedupe - when its ttl is over, a job runs anew', async (w) => {
  const [one, other] = [w.open(), w.open({ ttl: 0 })]
  let runs = 0
  one.process('work', () => ++runs)
  const began = performance.now()
  assert.equal(await one.submit('work', 'brief', { ttl: 400 }), 1)
  assert.equal(await other.submit('work', 'brief'), 1)
  await until(async () => (await other.submit('work', 'brief')) === 2, { what: 'a new run' })
  assert.ok(performance.now() - began >= 399, 'not before')
  assert.equal(await other.submit('work', 'none'), 3)
  assert.equal(await other.submit('work', 'none'), 4, 'the queue that submits says how long')
  assert.equal(await other.submit('work', 'kept', { ttl: 60_000 }), 5)
  assert.equal(await other.submit('work', 'kept'), 5)
})

onBothStores('dedupe - failures are kept for errorTtl, and by default not at all', async (w) => {
  const queue = w.open()
  let runs = 0
  queue.process('fail', () => {
    throw new Error(`run ${++runs}`)
  })
  const failing = async (payload: string, options: SubmitOptions = {}) =>
    ((await queue.submit('fail', payload, options).catch((error) => error)) as Error).message
  assert.equal(await failing('a'), 'run 1')
  assert.equal(await failing('a'), 'run 2')
  const began = performance.now()
  assert.equal(await failing('b', { errorTtl: 400 }), 'run 3')
  assert.equal(await failing('b'), 'run 3')
  assert.equal((await queue.enqueue('fail', 'b')).disposition, 'cached')
  await until(async () => (await failing('b')) === 'run 4', { what: 'a new run' })
  assert.ok(performance.now() - began >= 399, 'not before')
})

onBothStores('dedupe - another payload under a key: reject, or join', async (w) => {
  const [one, other] = [w.open(), w.open({ conflict: 'join' })]
  const { runs, running } = gated(w)
  const first = one.submit('work', 1, { dedupe: 'key' })
  await running(1)
  await assert.rejects(one.submit('work', 2, { dedupe: 'key' }), ConflictError)
  await assert.rejects(one.enqueue('work', 2, { dedupe: 'key' }), { code: 'E_CONFLICT' })
  const joined = other.submit('work', 2, { dedupe: 'key' })
  assert.equal((await one.enqueue('work', 2, { dedupe: 'key', conflict: 'join' })).disposition, 'joined')
  runs[0]?.end('first')
  assert.deepEqual(await Promise.all([first, joined]), ['first', 'first'])
  // Now the outcome is kept.
  await assert.rejects(one.submit('work', 2, { dedupe: 'key' }), ConflictError)
  assert.equal(await other.submit('work', 2, { dedupe: 'key' }), 'first')
  assert.equal(await one.submit('work', 1, { dedupe: 'key' }), 'first')
  assert.equal(runs.length, 1)
})

onBothStores('Q2 dedupe - rerun: once more after the current run, with the newest payload', async (w) => {
  const [one, other] = [w.open(), w.open({ conflict: 'rerun' })]
  const { runs, running } = gated(w)
  const first = one.submit('work', 1, { dedupe: 'key' })
  await running(1)
  const same = one.submit('work', 1, { dedupe: 'key', conflict: 'rerun' })
  const job = await until(async () => (await one.jobs('active')).jobs[0], { what: 'the job' })
  const waiters = async (count: number) =>
    until(async () => (await one.status(job.id))?.waiters === count, { what: `${count} to wait` })
  // A submission with other options waits by itself.
  await waiters(2)
  const second = other.submit('work', 2, { dedupe: 'key' })
  const third = one.submit('work', 3, { dedupe: 'key', conflict: 'rerun' })
  await waiters(4)
  const fourth = await other.enqueue('work', 4, { dedupe: 'key' })
  assert.equal(fourth.disposition, 'joined')
  assert.equal(runs.length, 1, 'it runs after the current one, not beside it')
  runs[0]?.end('of 1')
  assert.deepEqual(await Promise.all([first, same]), ['of 1', 'of 1'])
  await running(2)
  assert.equal(runs[1]?.payload, 4, 'several are one run, with the newest payload')
  runs[1]?.end('of 4')
  assert.deepEqual(await Promise.all([second, third, fourth.result()]), ['of 4', 'of 4', 'of 4'])
  assert.equal(await one.submit('work', 4, { dedupe: 'key' }), 'of 4', 'and it is what is kept')
  await assert.rejects(one.submit('work', 1, { dedupe: 'key' }), ConflictError)
  assert.equal(runs.length, 2)
})

onBothStores('dedupe - rerun: what runs now is run again if it is the newest', async (w) => {
  const queue = w.open({ conflict: 'rerun' })
  const { runs, running } = gated(w)
  const options = { dedupe: 'key' }
  const first = queue.submit('work', 1, options)
  await running(1)
  await queue.enqueue('work', 2, options)
  const again = await queue.enqueue('work', 1, options)
  runs[0]?.end('of 1')
  assert.equal(await first, 'of 1')
  await running(2)
  assert.equal(runs[1]?.payload, 1)
  runs[1]?.end('of 1 again')
  assert.equal(await again.result(), 'of 1 again')
})

onBothStores('dedupe - rerun follows a run that failed, and replaces an outcome that is kept', async (w) => {
  const queue = w.open({ conflict: 'rerun' })
  const { runs, running } = gated(w)
  const options = { dedupe: 'key' }
  const first = assert.rejects(queue.submit('work', 1, options), RemoteError)
  await running(1)
  const next = await queue.enqueue('work', 2, options)
  assert.equal(next.disposition, 'created')
  runs[0]?.fail(new Error('x'))
  await first
  await running(2)
  runs[1]?.end('of 2')
  assert.equal(await next.result(), 'of 2')
  const fresh = await queue.enqueue('work', 3, options)
  assert.equal(fresh.disposition, 'created')
  await running(3)
  runs[2]?.end('of 3')
  assert.equal(await fresh.result(), 'of 3')
  assert.equal(await queue.submit('work', 3, options), 'of 3')
})

onBothStores('Q2 dedupe - removal ends the run and the rerun for all who wait', async (w) => {
  const queue = w.open({ conflict: 'rerun' })
  const { running } = gated(w)
  const results = [queue.submit('work', 1, { dedupe: 'key' })]
  await running(1)
  results.push(queue.submit('work', 2, { dedupe: 'key' }))
  const job = await until(async () => (await queue.jobs('active')).jobs[0], { what: 'the job' })
  await until(async () => (await queue.status(job.id))?.waiters === 2, { what: 'both to wait' })
  const rejected = results.map((one) => assert.rejects(one, RemovedError))
  assert.equal(await queue.remove(job.id), true)
  await Promise.all(rejected)
})

onBothStores('Q2 dedupe - whoever waits sees nothing of attempts but the last', async (w) => {
  const [one, other] = [w.open({ attempts: 3, backoff: 1 }), w.open()]
  let runs = 0
  one.process('flaky', () => {
    if (++runs < 3) throw new Error(`run ${runs}`)
    return `run ${runs}`
  })
  one.process('broken', () => {
    throw new Error(`run ${++runs}`)
  })
  assert.deepEqual(await Promise.all([one.submit('flaky'), other.submit('flaky')]), ['run 3', 'run 3'])
  runs = 0
  const failures = [one.submit('broken'), other.submit('broken')]
  const messages = await Promise.all(failures.map((one) => one.catch((error: Error) => error.message)))
  assert.deepEqual(messages, ['run 3', 'run 3'])
})

/** A rerun is cancelled before its submitter has the reply, and is sent again. */
async function checkCancelledRerun(store: QueueStore): Promise<void> {
  const submission = (payload: string): Submission => ({
    ...{
      id: newId(),
      nonce: newId(),
      command: 'work',
      payload,
      options: '',
      awaited: false,
      conflict: 'rerun',
    },
    ...{ delay: 0, priority: 0, lifo: false, abortUnwanted: false, requiresWorker: false },
  })
  const submit = (sent: Submission) =>
    new Promise<SubmitReply>((onReply, onError) =>
      store.submit(sent, 2000, { onReply, onError, onNotice: () => {} }),
    )
  const first = submission('1')
  const rerun = { ...submission('2'), id: first.id }
  await submit(first)
  const created = await submit(rerun)
  assert.equal(created.status, 'created')
  const within = 2000
  const cancellation: Termination = {
    ...{ id: first.id, command: 'work', kind: 'error', bytes: Buffer.from('{}') },
    ...{ outcomeRetention: 15_000, when: 'always' as const },
  }
  assert.equal(await store.terminate(cancellation, within), true)
  assert.deepEqual(await submit(rerun), created)
  assert.equal((await store.counts(within)).waiting, 0)
  store.close()
}

test('S6 dedupe - a rerun that was cancelled is not created again when it is resent, in memory', async () => {
  await checkCancelledRerun(new MemoryQueueStore().connect('queue'))
})

test('S6 dedupe - a rerun that was cancelled is not created again when it is resent, on Redis', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await checkCancelledRerun(new RedisQueueStore(connection, 'soloflight', 'queue'))
})

onBothStores('Q2 dedupe - an exclusive submission is refused while a job waits under its key', async (w) => {
  const queues = Array.from({ length: 4 }, () => w.open())
  const options = { dedupe: 'key', conflict: 'exclusive', ttl: 60_000 } as const
  const posts = Array.from({ length: 150 }, (_, n) =>
    (queues[n % 4] as (typeof queues)[0]).enqueue('work', n % 2, options),
  )
  const settled = await Promise.allSettled(posts)
  const accepted = settled.filter(({ status }) => status === 'fulfilled')
  const refused = settled.filter((post) => post.status === 'rejected' && post.reason instanceof ConflictError)
  assert.deepEqual([accepted.length, refused.length], [1, 149])
  const { runs, running } = gated(w)
  await running(1)
  // It runs: one more may wait, with a delay and a priority of its own.
  const [queue] = queues as [(typeof queues)[0]]
  const follower = await queue.enqueue('work', 'next', { ...options, delay: 60_000 })
  assert.equal(follower.disposition, 'created')
  await assert.rejects(queue.enqueue('work', 'next', options), ConflictError)
  runs[0]?.end('done')
  await until(async () => (await queue.status(follower.id))?.state === 'delayed', { what: 'the follower' })
  await assert.rejects(queue.enqueue('work', 'next', options), ConflictError)
  assert.equal(await queue.remove(follower.id), true)
  // Its result is fresh, but is not returned.
  const last = queue.submit('work', 'next', options)
  await running(2)
  assert.equal(runs[1]?.payload, 'next')
  // Nor does a submission join another one of the same process.
  const two = [queue.submit('work', 'last', options), queue.submit('work', 'last', options)]
  const refusals = two.map((submission) =>
    submission.catch((error) => assert.ok(error instanceof ConflictError)),
  )
  await Promise.race(refusals)
  runs[1]?.end('again')
  assert.equal(await last, 'again')
  await running(3)
  runs[2]?.end('once')
  assert.deepEqual((await Promise.all(refusals)).filter(Boolean), ['once'])
})
