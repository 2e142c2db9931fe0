// Management of a queue: listing, pausing, draining, retrying.

import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import type { JobState, RedisQueue } from '../../src/index.ts'
import { onBothStores, type QueueWorld } from '../support/stores.ts'
import { until } from '../support/wait.ts'

/** One day, ms. */
const DAY = 24 * 60 * 60_000

function countsAre(queue: RedisQueue, expected: Partial<Record<JobState, number>>): Promise<unknown> {
  const zero = { waiting: 0, delayed: 0, active: 0, completed: 0, failed: 0 }
  const wanted = JSON.stringify({ ...zero, ...expected })
  return until(async () => JSON.stringify(await queue.counts()) === wanted, { what: `${wanted} jobs` })
}

/** A worker for a command that records its runs. */
function lister(w: QueueWorld, ...commands: string[]): string[] {
  const ran: string[] = []
  const queue = w.open()
  for (const command of commands) queue.process(command, (payload) => void ran.push(`${command} ${payload}`))
  return ran
}

onBothStores('manage - jobs of a paused command do not start until it is resumed', async (w) => {
  const queue = w.open()
  const ran = lister(w, 'a', 'b')
  await queue.submit('a', 0)
  await queue.submit('b', 0)
  await queue.pause('a')
  assert.deepEqual(await queue.paused(), ['a'])
  const first = queue.submit('a', 1)
  await queue.submit('b', 1)
  await queue.pause()
  assert.deepEqual((await queue.paused()).sort(), ['', 'a'])
  const second = queue.submit('b', 2)
  await countsAre(queue, { waiting: 2 })
  await queue.resume()
  await second
  assert.deepEqual(await queue.paused(), ['a'], 'it was paused by itself')
  await countsAre(queue, { waiting: 1 })
  await queue.pause('a')
  await queue.resume('a')
  await first
  assert.deepEqual(await queue.paused(), [])
  assert.deepEqual(ran, ['a 0', 'b 0', 'b 1', 'b 2', 'a 1'])
  await queue.resume('a')
  await queue.resume('nobody knows it')
})

onBothStores(
  'manage - a pause holds for workers and commands that come later, and what runs goes on',
  async (w) => {
    const queue = w.open()
    const gate = pDefer()
    queue.process('long', () => gate.promise)
    const long = queue.submit('long')
    await countsAre(queue, { active: 1 })
    await queue.pause()
    const jobs = await queue.enqueueMany(['a', 'b'].map((command) => ({ command, payload: 1 })))
    const next = await queue.enqueue('long', 'next')
    const ran = lister(w, 'a', 'b', 'c')
    const third = w.open().submit('c', 1)
    gate.resolve()
    await long
    await countsAre(queue, { waiting: 4 })
    assert.deepEqual(ran, [])
    await queue.resume()
    await Promise.all([third, next.result(), ...jobs.map((job) => job.result())])
    assert.deepEqual(ran.sort(), ['a 1', 'b 1', 'c 1'])
  },
)

onBothStores(
  'manage - delayed jobs that come due, and retries, wait while their command is paused',
  async (w) => {
    const queue = w.open()
    const ran: number[] = []
    const started = pDefer()
    const gate = pDefer()
    queue.process('work', async (_, job) => {
      ran.push(job.attempt)
      started.resolve()
      await gate.promise
      if (job.attempt === 1) throw new Error('x')
    })
    const first = queue.submit('work', 1, { attempts: 2 })
    await started.promise
    await queue.pause('work')
    const delayed = queue.submit('work', 2, { delay: 50, attempts: 2 })
    gate.resolve()
    await countsAre(queue, { waiting: 2 })
    assert.deepEqual(ran, [1])
    await queue.resume('work')
    await Promise.all([first, delayed])
  },
)

onBothStores('Q2 manage - drain removes what waits, and with `delayed` what is delayed', async (w) => {
  const queue = w.open()
  const fill = () =>
    queue.enqueueMany([
      ...Array.from({ length: 120 }, (_, payload) => ({ command: 'a', payload })),
      { command: 'b', options: { priority: 3 } },
      ...[1, 2].map((payload) => ({ command: 'b', payload, options: { delay: DAY } })),
    ])
  const jobs = await fill()
  const waits = [jobs[0], jobs[120]].map((job) =>
    assert.rejects(async () => job?.result(), { code: 'E_REMOVED' }),
  )
  await until(async () => (await jobs[120]?.status())?.waiters, { what: 'one who waits' })
  assert.equal(await queue.drain(), 121)
  await Promise.all(waits)
  await countsAre(queue, { delayed: 2 })
  assert.equal(await queue.drain(), 0)
  assert.equal(await queue.drain({ delayed: true }), 2)
  await countsAre(queue, {})
  await fill()
  assert.equal(await queue.drain({ delayed: true }), 123)
  await countsAre(queue, {})
})

onBothStores('Q1 manage - drain never ends a running job, whatever starts meanwhile', async (w) => {
  const COUNT = 3000
  const queue = w.open()
  const gates: (() => void)[] = []
  const open = (most: number) => {
    for (const gate of gates.splice(0, most)) gate()
  }
  let [begun, aborted, ended] = [0, 0, 0]
  w.open().process(
    'a',
    async (_, { signal }) => {
      begun++
      signal.addEventListener('abort', () => aborted++)
      await new Promise<void>((resolve) => gates.push(resolve))
      ended++
    },
    { concurrency: 200 },
  )
  const jobs = await queue.enqueueMany(
    Array.from({ length: COUNT }, (_, payload) => ({ command: 'a', payload })),
  )
  await until(() => begun === 200, { what: 'all slots to be taken' })
  // While some jobs end and others start in their slots.
  const opening = setInterval(() => open(40), 1)
  const removed = await queue.drain()
  await countsAre(queue, {})
  clearInterval(opening)
  assert.equal(aborted, 0, 'handlers were aborted')
  assert.equal(removed + ended, COUNT, `${removed} were removed, ${ended} ran`)
  const states = await Promise.all(jobs.map((job) => job.status()))
  assert.equal(states.filter((status) => status?.state === 'removed').length, removed)
})

onBothStores('manage - a job that is over runs once more by retry', async (w) => {
  const queue = w.open()
  let runs = 0
  queue.process('work', (_, job) => {
    if (++runs % 2) throw new Error(`run ${runs}, attempt ${job.attempt}`)
    return runs
  })
  const job = await queue.enqueue('work', undefined, { errorTtl: DAY })
  await assert.rejects(job.result(), { message: 'run 1, attempt 1' })
  assert.equal(await job.retry(), true)
  const again = (await queue.job(job.id)) ?? assert.fail('it is there')
  assert.ok(again.generation > job.generation, 'another generation')
  assert.equal(await again.result(), 2)
  assert.equal(await queue.submit('work'), 2)
  assert.equal((await job.status())?.state, 'completed')
  assert.equal(await queue.retry(job.id), true, 'also when it has completed')
  const third = (await queue.job(job.id)) ?? assert.fail('it is there')
  await assert.rejects(third.result(), { message: 'run 3, attempt 1' })
  await queue.pause()
  assert.equal(await job.retry(), true)
  assert.equal(await job.retry(), false, 'it waits already')
  const joined = await queue.enqueue('work')
  assert.equal(joined.disposition, 'joined')
  await queue.resume()
  assert.equal(await joined.result(), 4)
})

onBothStores('manage - redrive runs failed jobs once more, the oldest first', async (w) => {
  const queue = w.open()
  let works = false
  const order: unknown[] = []
  queue.process('work', (payload) => {
    if (!works) throw new Error('x')
    order.push(payload)
  })
  for (let payload = 0; payload < 130; payload++) await queue.submit('work', payload).catch(() => {})
  await countsAre(queue, { failed: 130 })
  // Jobs that fail again are not retried endlessly.
  assert.equal(await queue.redrive(), 130)
  await countsAre(queue, { failed: 130 })
  const [oldest] = (await queue.jobs('failed', { limit: 3 })).jobs
  works = true
  assert.equal(await queue.redrive({ limit: 3 }), 3)
  await countsAre(queue, { failed: 127 })
  assert.ok(order.includes(oldest?.payload), `${order} without ${oldest?.payload}`)
  assert.equal(await queue.redrive(), 127)
  await countsAre(queue, {})
  assert.equal(new Set(order).size, 130)
  assert.equal(await queue.redrive(), 0)
})

onBothStores('manage - jobs of every state are listed by pages', async (w) => {
  const queue = w.open({ retain: { completed: { count: 50, age: DAY } } })
  const gate = pDefer()
  queue.process('done', (payload) => payload)
  queue.process('broken', (payload) => Promise.reject(new Error(`${payload}`)))
  queue.process('held', () => gate.promise, { concurrency: 10 })
  const seven = Array.from({ length: 7 }, (_, index) => index)
  for (const payload of seven) {
    await queue.submit('done', payload)
    await queue.submit('broken', payload).catch(() => {})
    await queue.enqueue('later', payload, { delay: DAY + 1000 * payload })
    await queue.enqueue('x', payload)
    await queue.enqueue('held', payload)
  }
  await countsAre(queue, { waiting: 7, delayed: 7, active: 7, completed: 7, failed: 7 })
  for (const state of ['waiting', 'delayed', 'active', 'completed', 'failed'] as const) {
    for (const limit of [1, 3, 7, 10]) {
      const payloads: unknown[] = []
      let pages = 0
      for (let cursor: string | undefined = '0'; cursor !== undefined; pages++) {
        const page: Awaited<ReturnType<typeof queue.jobs>> = await queue.jobs(state, { limit, cursor })
        assert.ok(page.jobs.length <= limit, `a page of ${page.jobs.length}`)
        for (const job of page.jobs) assert.equal(job.state, state)
        payloads.push(...page.jobs.map(({ payload }) => payload))
        cursor = page.cursor
      }
      if (state === 'active') payloads.sort()
      assert.deepEqual(payloads, seven, `${state} by ${limit}`)
      assert.ok(pages <= Math.floor(7 / limit) + 1, `${pages} pages`)
    }
    assert.deepEqual((await queue.jobs(state, { cursor: '100' })).jobs, [])
  }
  assert.equal((await queue.jobs('failed')).jobs[2]?.failure?.message, '2')
  assert.equal((await queue.jobs('completed')).jobs[2]?.result, 2)
  gate.resolve()
})

onBothStores('manage - finished jobs are kept for listing as many and as long as it is said', async (w) => {
  const few = w.open({ retain: { completed: { count: 3, age: DAY }, failed: { count: 2, age: DAY } } })
  const run = async (payloads: number[]) => {
    for (const payload of payloads) {
      await few.submit('done', payload)
      await few.submit('broken', payload).catch(() => {})
    }
  }
  few.process('done', (payload) => payload)
  few.process('broken', () => Promise.reject(new Error('x')))
  await run([1, 2, 3, 4, 5])
  const listed = async (state: JobState) => (await few.jobs(state)).jobs.map(({ payload }) => payload)
  await countsAre(few, { completed: 3, failed: 2 })
  assert.deepEqual(
    [await listed('completed'), await listed('failed')],
    [
      [3, 4, 5],
      [4, 5],
    ],
  )
  assert.equal((await few.enqueue('done', 1)).disposition, 'cached', 'its ttl is another matter')
})

onBothStores(
  'manage - after their age finished jobs are gone, and none is kept unless it is said',
  async (w) => {
    const queue = w.open({
      ttl: 0,
      retain: { completed: { count: 10, age: 300 }, failed: { count: 10, age: 300 } },
    })
    queue.process('done', () => 1)
    queue.process('broken', () => Promise.reject(new Error('x')))
    await queue.submit('done')
    await queue.submit('broken').catch(() => {})
    await countsAre(queue, { completed: 1, failed: 1 })
    await countsAre(queue, {})
    const plain = w.open({ retain: { failed: false } }, 'plain')
    plain.process('done', () => 1)
    plain.process('broken', () => Promise.reject(new Error('x')))
    await plain.submit('done')
    await plain.submit('broken').catch(() => {})
    await countsAre(plain, {})
  },
)

onBothStores('manage - stats tell what happened in this process', async (w) => {
  const [here, there] = [w.open(), w.open()]
  const gate = pDefer()
  here.process('work', () => gate.promise)
  here.process('flaky', (_, job) => {
    if (job.attempt < 3) throw new Error('x')
  })
  here.process('broken', () => Promise.reject(new Error('x')))
  const [first, second] = [there.submit('work'), there.submit('work')]
  await until(() => here.stats().running === 1, { what: 'the handler to run' })
  assert.equal(there.stats().waiting, 1, 'one job, whatever number of submitters')
  assert.equal(there.stats().running, 0)
  gate.resolve()
  await Promise.all([first, second])
  await there.submit('flaky', undefined, { attempts: 3 })
  await there.submit('broken').catch(() => {})
  await there.enqueueMany([{ command: 'x' }, { command: 'x' }])
  const { running, waiting, submitted, completed, retried, failed, lost, stalled } = here.stats()
  assert.deepEqual(
    { running, waiting, submitted, completed, retried, failed, lost, stalled },
    { running: 0, waiting: 0, submitted: 0, completed: 2, retried: 2, failed: 1, lost: 0, stalled: 0 },
  )
  assert.equal(there.stats().submitted, 6)
  assert.equal(there.stats().subscribed, true)
})
