// Attempts, backoff, order and concurrency.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { type BackoffOptions, RemoteError, type RunningJob, TimeoutError } from '../../src/index.ts'
import { backoffDelay } from '../../src/queue/working/backoff.ts'
import { EPSILON } from '../support/lockers.ts'
import { onBothStores, subscribed } from '../support/stores.ts'
import { until } from '../support/wait.ts'

onBothStores('attempts - a job is tried as often as it says, or as its queue says', async (w) => {
  const queue = w.open({ attempts: 2 })
  const seen: number[] = []
  queue.process('fail', (_, job) => {
    seen.push(job.attempt)
    throw new Error(`attempt ${job.attempt}`)
  })
  await assert.rejects(queue.submit('fail'), { message: 'attempt 2' })
  await assert.rejects(queue.submit('fail', undefined, { attempts: 4 }), { message: 'attempt 4' })
  await assert.rejects(queue.submit('fail', undefined, { attempts: 1 }), { message: 'attempt 1' })
  assert.deepEqual(seen, [1, 2, 1, 2, 3, 4, 1])
  // `attempts` is set on the queue of the submitter, not on that of the worker.
  await assert.rejects(w.open({ attempts: 3 }).submit('fail'), { message: 'attempt 3' })
})

onBothStores('attempts - each has a higher fence, and the number of retries is shown', async (w) => {
  const queue = w.open()
  const jobs: RunningJob[] = []
  const gate = pDefer()
  queue.process('fail', async (_, job) => {
    jobs.push(job)
    if (job.attempt < 3) throw new Error('x')
    await gate.promise
  })
  const job = await queue.enqueue('fail', undefined, { attempts: 3 })
  await until(() => jobs.length === 3, { what: 'the last attempt' })
  const status = await job.status()
  assert.deepEqual([status?.state, status?.retries, status?.stalls], ['active', 2, 0])
  const [first = 0, second = 0, third = 0] = jobs.map(({ fence }) => fence)
  assert.ok(first < second && second < third, `${first} ${second} ${third}`)
  gate.resolve()
  await job.result()
})

onBothStores('attempts - backoff is waited for: of the submission, or of the worker', async (w) => {
  const calls: unknown[][] = []
  const worker = w.open({
    backoff: (failed, error) => {
      calls.push([failed, (error as Error).message])
      return failed * 100
    },
  })
  const at: number[] = []
  worker.process('fail', (_, job) => {
    at.push(performance.now())
    throw new Error(`attempt ${job.attempt}`)
  })
  const other = w.open({ backoff: { type: 'exponential', delay: 100, jitter: 0 } })
  const pausesOf = async (submit: () => Promise<unknown>) => {
    at.length = 0
    await assert.rejects(submit(), RemoteError)
    return at.slice(1).map((time, index) => time - (at[index] ?? 0))
  }
  const near = (pauses: number[], expected: number[]) => {
    assert.equal(pauses.length, expected.length)
    for (const [index, ms] of expected.entries()) {
      const pause = pauses[index] ?? 0
      assert.ok(pause >= ms - 1 && pause < ms + EPSILON, `${pauses} instead of ${expected}`)
    }
  }
  near(await pausesOf(() => worker.submit('fail', 1, { attempts: 3 })), [100, 200])
  assert.deepEqual(calls, [
    [1, 'attempt 1'],
    [2, 'attempt 2'],
  ])
  near(await pausesOf(() => worker.submit('fail', 2, { attempts: 3, backoff: 150 })), [150, 150])
  near(await pausesOf(() => other.submit('fail', 3, { attempts: 4 })), [100, 200, 400])
  const limited = { type: 'exponential', delay: 100, jitter: 0, max: 150 } as const
  near(await pausesOf(() => other.submit('fail', 4, { attempts: 4, backoff: limited })), [100, 150, 150])
  assert.equal(calls.length, 2, 'what a submission says goes first')
})

test('attempts - backoff grows as it says, within the bounds of its jitter', () => {
  const pauses = (backoff: Parameters<typeof backoffDelay>[0], failed: number) =>
    Array.from({ length: 200 }, () => backoffDelay(backoff, failed, new Error('x')))
  const bounds: [number | BackoffOptions, number, number, number][] = [
    [250, 3, 250, 250],
    [{ type: 'fixed', delay: 100 }, 9, 100, 100],
    [{ type: 'fixed', delay: 100, jitter: 0.2 }, 9, 80, 100],
    [{ type: 'exponential', delay: 100, jitter: 0 }, 4, 800, 800],
    [{ type: 'exponential', delay: 100 }, 1, 50, 100],
    [{ type: 'exponential', delay: 100 }, 3, 200, 400],
    [{ type: 'exponential', delay: 100, jitter: 1 }, 3, 0, 400],
    [{ type: 'exponential', delay: 100, max: 300 }, 9, 150, 300],
    [{ type: 'exponential', delay: 1000, jitter: 0 }, 10_000, 3_600_000, 3_600_000],
    [{ type: 'fixed', delay: 100, max: 30 }, 1, 30, 30],
  ]
  for (const [backoff, failed, least, most] of bounds) {
    const all = pauses(backoff, failed)
    for (const pause of all) {
      assert.ok(pause >= least && pause <= most, `${JSON.stringify(backoff)} after ${failed}: ${pause}`)
      assert.ok(Number.isInteger(pause), `${pause} is whole`)
    }
    if (least < most) assert.ok(new Set(all).size > 5, 'they differ')
  }
  for (const odd of [Number.NaN, -5, Number.POSITIVE_INFINITY, undefined, 'x', 1.4, null]) {
    const pause = backoffDelay(() => odd as number, 1, undefined)
    assert.ok(Number.isSafeInteger(pause) && pause >= 0, `${odd}: ${pause}`)
  }
})

onBothStores('attempts - a backoff function that throws costs the pause, not the retry', async (w) => {
  const queue = w.open({
    backoff: () => {
      throw new Error('bad function')
    },
  })
  queue.process('fail', (_, job) => {
    if (job.attempt === 1) throw new Error('x')
    return 'done'
  })
  assert.equal(await queue.submit('fail', undefined, { attempts: 2 }), 'done')
})

onBothStores('attempts - delayed jobs run when they are due, in the order of that', async (w) => {
  const [here, there] = [w.open(), w.open()]
  const order: [string, number][] = []
  here.process('work', (name: string) => void order.push([name, performance.now()]))
  const began = performance.now()
  const delays = { c: 600, a: 200, b: 400, now: 0 }
  const jobs = await Promise.all(
    Object.entries(delays).map(([name, delay]) => there.enqueue('work', name, { delay })),
  )
  assert.equal((await there.counts()).delayed, 3)
  const [first] = (await there.jobs('delayed')).jobs
  assert.deepEqual([first?.payload, first?.state], ['a', 'delayed'])
  await Promise.all(jobs.map((job) => job.result()))
  assert.deepEqual(
    order.map(([name]) => name),
    ['now', 'a', 'b', 'c'],
  )
  for (const [name, at] of order) {
    const delay = delays[name as keyof typeof delays]
    assert.ok(at - began >= delay - 1 && at - began < delay + EPSILON, `${name} after ${at - began} ms`)
  }
})

onBothStores('attempts - a delayed job is one with the same submitted meanwhile', async (w) => {
  const queue = w.open()
  queue.process('work', () => performance.now())
  const began = performance.now()
  const first = queue.submit('work', 1, { delay: 300 })
  const second = queue.submit('work', 1)
  assert.equal(await first, await second)
  assert.ok(((await first) as number) - began >= 299, 'the second does not hurry it')
})

onBothStores(
  'attempts - higher priorities first, then the earlier; the last before ordinary ones',
  async (w) => {
    const queue = w.open()
    const jobs = [
      ...[
        ['a', {}],
        ['b', { priority: 1 }],
        ['c', {}],
        ['d', { priority: 1_000_000 }],
        ['e', { lifo: true }],
      ],
      ...[
        ['f', { priority: 1 }],
        ['g', { lifo: true }],
        ['h', { priority: 2 }],
        ['i', { priority: 10, lifo: true }],
      ],
      ...[
        ['j', {}],
        ['k', { priority: 0 }],
        ['l', { priority: 1_000_000 }],
      ],
    ] as [string, object][]
    for (const [name, options] of jobs) await queue.enqueue('work', name, options)
    const expected = [...'dlihbf', ...'ge', ...'acjk']
    const listed = (await queue.jobs('waiting')).jobs.map(({ payload }) => payload)
    assert.deepEqual(listed, expected, 'as it is listed')
    const order: string[] = []
    const worker = w.open()
    await subscribed(worker)
    worker.process('work', (name: string) => void order.push(name))
    await until(() => order.length === jobs.length, { what: 'all to run' })
    assert.deepEqual(order, expected, 'as it runs')
  },
)

onBothStores('attempts - a job keeps its priority when it is tried again', async (w) => {
  const queue = w.open()
  const order: string[] = []
  const gate = pDefer()
  await subscribed(queue)
  queue.process('work', async (name: string, job) => {
    order.push(`${name}${job.attempt}`)
    if (name === 'first') await gate.promise
    if (name === 'high' && job.attempt === 1) throw new Error('x')
  })
  await queue.enqueue('work', 'first')
  await until(() => order.length === 1, { what: 'the first to run' })
  for (const name of ['a', 'b']) await queue.enqueue('work', name)
  await queue.enqueue('work', 'high', { priority: 5, attempts: 2 })
  gate.resolve()
  await until(() => order.length === 5, { what: 'all to run' })
  assert.deepEqual(order, ['first1', 'high1', 'high2', 'a1', 'b1'])
})

onBothStores('attempts - one that takes longer than maxHold has failed', async (w) => {
  const queue = w.open({ maxHold: 200, lease: 300 })
  const reasons: unknown[] = []
  queue.process('slow', async (_, job) => {
    await new Promise((stop) => job.signal.addEventListener('abort', stop))
    reasons.push(job.signal.reason)
    return 'too late'
  })
  for (const attempts of [1, 2]) {
    reasons.length = 0
    await assert.rejects(queue.submit('slow', attempts, { attempts }), (error) => {
      assert.ok(error instanceof RemoteError && error.remote.code === 'E_TIMEOUT', `${error}`)
      assert.match(error.message, /longer than 200 ms/)
      return true
    })
    await until(() => reasons.length >= attempts, { what: `${attempts} signals beyond ${reasons}` })
    assert.equal(reasons.length, attempts, `${reasons}`)
    for (const reason of reasons) assert.ok(reason instanceof TimeoutError, `${reason}`)
  }
  queue.process('quick', () => 'done')
  assert.equal(await queue.submit('quick'), 'done')
})

onBothStores('attempts - one that ends at maxHold emits one outcome', async (w) => {
  const queue = w.open({ maxHold: 150, lease: 300 })
  const gate = pDefer()
  let signal: AbortSignal | undefined
  queue.process('slow', async (_, job) => {
    await gate.promise
    signal = job.signal
    job.log('too late')
  })
  await assert.rejects(queue.submit('slow'), { name: 'RemoteError' })
  await until(() => queue.stats().failed === 1, { what: 'the failure to be counted' })
  gate.resolve()
  await until(() => signal !== undefined, { what: 'the handler to end' })
  assert.ok(signal?.reason instanceof TimeoutError, `${signal?.reason}`)
  queue.process('quick', () => 'done')
  assert.equal(await queue.submit('quick'), 'done')
  const { failed, lost, running } = queue.stats()
  assert.deepEqual({ failed, lost, running }, { failed: 1, lost: 0, running: 0 })
})

onBothStores('attempts - as many at once as a command may, never more', async (w) => {
  const queues = [w.open(), w.open()]
  const slots = { a: 7, b: 1, c: 16 }
  const most: Record<string, number> = {}
  for (const [index, queue] of queues.entries()) {
    for (const [command, concurrency] of Object.entries(slots)) {
      const name = `${command}${index}`
      let running = 0
      queue.process(
        command,
        async () => {
          running++
          most[name] = Math.max(most[name] ?? 0, running)
          // All slots are used: each handler waits until all the others run as well.
          if (concurrency > 1)
            await until(() => most[name] === concurrency, { what: `${concurrency} at once` })
          await sleep(1)
          running--
        },
        { concurrency },
      )
    }
  }
  const jobs = await w
    .open()
    .enqueueMany(
      Object.keys(slots).flatMap((command) =>
        Array.from({ length: 150 }, (_, payload) => ({ command, payload })),
      ),
    )
  await Promise.all(jobs.map((job) => job.result()))
  assert.deepEqual(most, { a0: 7, a1: 7, b0: 1, b1: 1, c0: 16, c1: 16 })
})

onBothStores('attempts - with unknownCommands refuse, a job needs a worker that is known', async (w) => {
  const queue = w.open({ unknownCommands: 'refuse' })
  await assert.rejects(queue.submit('work'), { code: 'E_UNKNOWN_COMMAND', name: 'UnknownCommandError' })
  await assert.rejects(queue.enqueue('work'), { code: 'E_UNKNOWN_COMMAND' })
  await assert.rejects(queue.enqueueMany([{ command: 'work' }]), { code: 'E_UNKNOWN_COMMAND' })
  assert.deepEqual(await queue.counts(), { waiting: 0, delayed: 0, active: 0, completed: 0, failed: 0 })
  const worker = w.open()
  worker.process('work', () => 'done')
  await until(() => queue.submit('work', 'warm'), { what: 'the worker to be known' })
  assert.equal(await queue.submit('work', 2), 'done')
  await assert.rejects(queue.submit('other'), { code: 'E_UNKNOWN_COMMAND' })
  await worker.close()
  await assert.rejects(queue.submit('work', 3), { code: 'E_UNKNOWN_COMMAND' })
  assert.equal(await queue.submit('work', 2), 'done', 'what is kept needs no worker')
})

onBothStores('attempts - a handler may delay the next attempt, and rule it out', async (w) => {
  const worker = w.open({ backoff: 50 })
  const at: number[] = []
  const delays: Record<number, number[]> = { 1: [300, 1], 2: [0, Number.POSITIVE_INFINITY], 3: [] }
  worker.process('fail', (kind, job) => {
    at.push(performance.now())
    const delay = delays[kind as number]?.[job.attempt - 1]
    if (kind === 3) job.retryAfter(Number.POSITIVE_INFINITY)
    job.retryAfter(delay ?? 0)
    throw new Error(`attempt ${job.attempt}`)
  })
  const failsAfter = async (attempts: number, kind: number) => {
    at.length = 0
    await assert.rejects(worker.submit('fail', kind, { attempts: 3 }), { message: `attempt ${attempts}` })
    return at.slice(1).map((time, index) => time - (at[index] ?? 0))
  }
  const [first = 0, second = 0] = await failsAfter(3, 1)
  assert.ok(first >= 299, `at least what it asks for: ${first} ms`)
  assert.ok(second >= 49, `the backoff is longer: ${second} ms`)
  await failsAfter(2, 2)
  assert.equal(at.length, 2, 'no attempt follows')
  // The last call counts.
  await failsAfter(3, 3)
})

onBothStores('attempts - retryAfter takes a number from 0, and has no effect on a success', async (w) => {
  const worker = w.open()
  worker.process('work', (payload, job) => {
    for (const odd of [-1, Number.NaN, '5', undefined])
      assert.throws(() => job.retryAfter(odd as number), TypeError)
    job.retryAfter(Number.POSITIVE_INFINITY)
    return [payload, job.payloadText]
  })
  assert.deepEqual(await worker.submit('work', { b: 1, a: [2] }), [{ b: 1, a: [2] }, '{"a":[2],"b":1}'])
  assert.deepEqual(await worker.submit('work'), [undefined, ''])
})
