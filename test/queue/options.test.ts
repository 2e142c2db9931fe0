// Options: invalid ones are refused with a message, valid ones take effect.

import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { inspect } from 'node:util'
import {
  Connection,
  jsonCodec,
  MemoryQueueStore,
  type ProcessOptions,
  type QueueOptions,
  RedisQueue,
  type SubmitOptions,
} from '../../src/index.ts'
import { onBothStores } from '../support/stores.ts'
import { until } from '../support/wait.ts'

const MOMENT = /^a number from 0 to 315360000000$/
const COUNT = /^a whole number from 1 and up, or Infinity$/

/** Values that are no duration. The message shows `String(value)`. */
const NO_NUMBERS = [-1, Number.NaN, '5', null, {}, true, 5n]

/** For each option: the expected type, and invalid values. */
type Wrong = Record<string, [RegExp, unknown[]]>

const SHARED: Wrong = {
  ttl: [MOMENT, [...NO_NUMBERS, Number.POSITIVE_INFINITY, 1e15]],
  errorTtl: [MOMENT, [...NO_NUMBERS, Number.POSITIVE_INFINITY]],
  attempts: [COUNT, [0, 1.5, ...NO_NUMBERS]],
  timeout: [/^a number of milliseconds from 0 and up, or Infinity$/, NO_NUMBERS],
  conflict: [/^one of "reject", "join", "rerun", "exclusive"$/, ['merge', '', null, 1, true]],
  abortUnwanted: [/^one of true, false$/, ['yes', 1, null]],
  backoff: [/^an object$/, ['5', true, null]],
}

const QUEUE: Wrong = {
  ...SHARED,
  prefix: [/^1 to 64 of A-Z a-z 0-9 _ : \. -$/, ['', 'a b', '{tag}', 'a/b', 'x'.repeat(65), 5, null]],
  lease: [/^a number of milliseconds from 100 and up$/, [99, ...NO_NUMBERS, Number.POSITIVE_INFINITY]],
  maxHold: [/^a number of milliseconds from 1 and up, or Infinity$/, [0, ...NO_NUMBERS]],
  unavailableAfter: [
    /^a number of milliseconds from 1 and up$/,
    [0, ...NO_NUMBERS, Number.POSITIVE_INFINITY],
  ],
  maxStalls: [/^a whole number from 0 and up, or Infinity$/, [1.5, ...NO_NUMBERS]],
  maxPayload: [/^a whole number from 1 to 536870912$/, [0, 1.5, 2 ** 30, ...NO_NUMBERS]],
  unknownCommands: [/^one of "keep", "refuse"$/, ['drop', true, null]],
  trace: [/^a function$/, ['00-', 5, null, {}]],
  exposeError: [/^a function$/, [true, null, {}]],
  store: [/^a MemoryQueueStore$/, ['memory', {}, null, new Map()]],
}

const SUBMIT: Wrong = {
  ...SHARED,
  dedupe: [/^a key or false$/, ['', true, null, 5, {}]],
  delay: [/a number from 0 to 31536000000$/, [...NO_NUMBERS, Number.POSITIVE_INFINITY]],
  priority: [/^a whole number from 1 to 1000000$/, [-1, 0.5, 1_000_001, '1', null, Number.NaN]],
  lifo: [/^one of true, false$/, [1, 'yes', null]],
  backoff: [/^an object$/, ['5', null, () => 5]],
  signal: [/^an AbortSignal$/, [null, {}, new AbortController()]],
  onProgress: [/^a function$/, ['log', null, {}]],
}

function textOf(value: unknown): string {
  return `\`${String(value).slice(0, 80)}\` (${typeof value})`
}

/** Checks that each value is refused with a TypeError that names the option, the expected type and the value. */
async function allRefused(wrong: Wrong, attempt: (options: object) => unknown): Promise<void> {
  for (const [name, [expected, values]] of Object.entries(wrong)) {
    for (const value of values) {
      const what = `${name}: ${inspect(value)}`
      await assert.rejects(
        async () => attempt({ [name]: value }),
        (error) => {
          assert.ok(error instanceof TypeError, `${what}: ${error}`)
          const [, said, wanted = '', got] =
            /^Expected `([\w.]+)` to be (.*), got (.*)$/s.exec(error.message) ?? []
          assert.equal(said, name, error.message)
          assert.match(wanted, expected, what)
          assert.equal(got, textOf(value), error.message)
          return true
        },
      )
    }
  }
}

describe('options', () => {
  const queue = new RedisQueue('queue')
  after(() => queue.close())

  test('options - every wrong option of a queue is refused', async () => {
    await allRefused(QUEUE, (options) => new RedisQueue('queue', options as QueueOptions))
  })

  test('options - every wrong option of a submission is refused, before anything is submitted', async () => {
    await allRefused(SUBMIT, (options) => queue.submit('work', 1, options as SubmitOptions))
    await allRefused(SUBMIT, (options) => queue.enqueue('work', 1, options as SubmitOptions))
    await allRefused(SUBMIT, (options) => queue.enqueueMany([{ command: 'work', options }]))
    assert.equal((await queue.counts()).waiting, 0)
    const job = await queue.enqueue('work')
    const { timeout, signal, onProgress } = SUBMIT as Required<typeof SUBMIT>
    await allRefused({ timeout, signal, onProgress } as Wrong, (options) => job.result(options))
  })

  test('options - every wrong option of a worker, and of what looks at a queue, is refused', async () => {
    const wrong: Wrong = {
      concurrency: [/^a whole number from 1 to 10000$/, [0, 1.5, 10_001, ...NO_NUMBERS]],
    }
    await allRefused(wrong, (options) => queue.process('work', () => 1, options as ProcessOptions))
    const limits: Wrong = { limit: [COUNT, [0, 1.5, ...NO_NUMBERS]] }
    await allRefused(limits, (options) => queue.jobs('waiting', options))
    await allRefused(limits, (options) => queue.redrive(options))
    const grace: Wrong = { grace: [/^a number of milliseconds from 0 and up, or Infinity$/, NO_NUMBERS] }
    await allRefused(grace, (options) => queue.close(options))
    for (const cursor of ['x', '-1', '1.5', 'NaN', '1e30', 'Infinity']) {
      await assert.rejects(queue.jobs('waiting', { cursor }), /^TypeError: Expected `cursor` to be/, cursor)
    }
    for (const state of ['done', '', 'toString', undefined]) {
      await assert.rejects(
        queue.jobs(state as 'waiting'),
        /^TypeError: Expected `state` to be/,
        String(state),
      )
    }
  })

  test('options - parts of options are named by their path', async () => {
    const parts: [object, RegExp][] = [
      [
        { backoff: { type: 'linear', delay: 5 } },
        /`backoff\.type` to be one of "fixed", "exponential", got `linear`/,
      ],
      [{ backoff: { type: 'fixed' } }, /`backoff\.delay` to be a number of milliseconds .*got `undefined`/],
      [{ backoff: { type: 'fixed', delay: 5, max: -1 } }, /`backoff\.max` to be .*got `-1`/],
      [
        { backoff: { type: 'fixed', delay: 5, jitter: 2 } },
        /`backoff\.jitter` to be a number from 0 to 1, got `2`/,
      ],
      [{ backoff: { type: 'fixed', delay: 5, jiter: 1 } }, /Unknown option `jiter` in `backoff`/],
      [{ backoff: -5 }, /`backoff` to be a number of milliseconds from 0 and up, got `-5`/],
      [{ backoff: Number.NaN }, /`backoff` to be a number of milliseconds/],
    ]
    const ofQueues: [object, RegExp][] = [
      [{ retain: 5 }, /`retain` to be an object, got `5`/],
      [{ retain: { done: false } }, /Unknown option `done` in `retain`; known are completed, failed/],
      [{ retain: { completed: true } }, /`retain\.completed` to be an object, got `true`/],
      [{ retain: { failed: { count: 5 } } }, /`retain\.failed\.age` to be .*got `undefined`/],
      [{ retain: { failed: { count: 0, age: 5 } } }, /`retain\.failed\.count` to be a whole number from 1/],
      [{ retain: { failed: { count: 5, age: 0 } } }, /`retain\.failed\.age` to be a number from 1/],
      [{ retain: { failed: { count: 5, age: 5, size: 5 } } }, /Unknown option `size` in `retain\.failed`/],
      [{ codec: {} }, /`codec\.encode` to be a function, got `undefined`/],
      [{ codec: { encode: jsonCodec.encode } }, /`codec\.decode` to be a function/],
      [{ codec: 'json' }, /`codec\.encode` to be a function/],
      [{ redis: 6379 }, /`redis` to be .*got `6379`/],
      [{ redis: 'nonsense' }, /`redis` to be a URL/],
      [{ redis: '/socket', store: new MemoryQueueStore() }, /either `redis` or `store`, got both/],
    ]
    for (const [options, message] of [...parts, ...ofQueues]) {
      assert.throws(() => new RedisQueue('queue', options as QueueOptions), { name: 'TypeError', message })
    }
    for (const [options, message] of parts) {
      await assert.rejects(queue.submit('work', 1, options as SubmitOptions), { name: 'TypeError', message })
    }
  })

  test('options - unknown ones are named, with those that are known', async () => {
    const misspelt = /^Unknown option `tll` in `options`; known are .*ttl, /
    assert.throws(() => new RedisQueue('queue', { tll: 5 } as QueueOptions), {
      name: 'TypeError',
      message: misspelt,
    })
    await assert.rejects(queue.submit('work', 1, { tll: 5 } as SubmitOptions), { message: misspelt })
    // An option of the queue that is not one of a submission.
    await assert.rejects(queue.submit('work', 1, { lease: 500 } as SubmitOptions), /Unknown option `lease`/)
    const process = () => queue.process('work', () => 1, { concurency: 5 } as ProcessOptions)
    assert.throws(process, /Unknown option `concurency` in `options`; known are concurrency/)
    for (const options of [null, 'x', 5] as unknown as object[]) {
      assert.throws(() => new RedisQueue('queue', options), /Expected `options` to be an object/)
      await assert.rejects(queue.submit('work', 1, options), /Expected `options` to be an object/)
    }
  })

  test('options - names and handlers are what they should be', async () => {
    for (const name of ['', 'x'.repeat(257), 5, null, undefined, {}] as string[]) {
      const message = /^Expected `name` to be a string of 1 to 256 characters, got /
      assert.throws(() => new RedisQueue(name), { name: 'TypeError', message })
      const ofCommand = /^Expected `command` to be a string of 1 to 256 characters, got /
      await assert.rejects(queue.submit(name), { name: 'TypeError', message: ofCommand })
      assert.throws(() => queue.process(name, () => 1), { name: 'TypeError', message: ofCommand })
      if (name === undefined) continue
      await assert.rejects(queue.pause(name), { name: 'TypeError', message: ofCommand })
      await assert.rejects(queue.resume(name), { name: 'TypeError', message: ofCommand })
    }
    for (const handler of [undefined, null, 'x', {}] as (() => unknown)[]) {
      assert.throws(
        () => queue.process('work', handler),
        /^TypeError: Expected `handler` to be a function, got /,
      )
    }
    await assert.rejects(
      queue.watch('x' as unknown as () => void),
      /^TypeError: Expected `listener` to be a function/,
    )
    queue.process('twice', () => 1)
    assert.throws(() => queue.process('twice', () => 1), /`twice` is processed here already/)
  })
})

onBothStores('options - undefined is the same as nothing', async (w) => {
  const nothing = {
    ...{ ttl: undefined, errorTtl: undefined, attempts: undefined, timeout: undefined, conflict: undefined },
    ...{ abortUnwanted: undefined, backoff: undefined },
  }
  const queue = w.open({
    ...nothing,
    ...{ prefix: undefined, lease: undefined, maxHold: undefined, unavailableAfter: undefined },
    ...{ maxStalls: undefined, retain: undefined, maxPayload: undefined, unknownCommands: undefined },
    ...{ codec: undefined, trace: undefined, exposeError: undefined },
  })
  queue.process('work', (payload) => payload, { concurrency: undefined })
  const none = { dedupe: undefined, delay: undefined, priority: undefined, lifo: undefined }
  const all = { ...nothing, ...none, signal: undefined, onProgress: undefined }
  assert.equal(await queue.submit('work', 1, all), 1)
  assert.equal((await queue.enqueue('work', 1)).disposition, 'cached')
  assert.deepEqual((await queue.jobs('failed', { limit: undefined, cursor: undefined } as object)).jobs, [])
  const retain = w.open({ retain: { completed: undefined, failed: undefined } })
  assert.equal(await retain.submit('work', 1), 1)
  new RedisQueue('queue', { redis: undefined, store: undefined })
})

onBothStores('options - durations need not be whole numbers', async (w) => {
  const kept = { count: 5, age: 60_000.5 }
  const queue = w.open({
    ...{ ttl: 60_000.4, errorTtl: 60_000.6, lease: 333.3, maxHold: 20_000.5, timeout: 20_000.5 },
    ...{ unavailableAfter: 2000.5, backoff: 0.7, retain: { completed: kept, failed: kept } },
  })
  queue.process('work', async (n: number, job) => {
    // Longer than the lease, which is renewed.
    await new Promise((resolve) => setTimeout(resolve, 500))
    if (n < 0 || job.attempt === 1) throw new Error('x')
    return n
  })
  const options = { delay: 0.5, attempts: 2, backoff: { type: 'fixed', delay: 1.5, jitter: 0.1 } } as const
  assert.equal(await queue.submit('work', 1, options), 1)
  await assert.rejects(queue.submit('work', -1), { code: 'E_REMOTE' })
  assert.equal((await queue.enqueue('work', -1)).disposition, 'cached')
  const { completed, failed } = await queue.counts()
  assert.deepEqual({ completed, failed }, { completed: 1, failed: 1 })
  await queue.close({ grace: 0.5 })
})

onBothStores('options - the largest values are taken, and do no harm', async (w) => {
  const decade = 10 * 365 * 24 * 60 * 60_000
  const [most, Infinite] = [{ count: 10_000_000, age: decade }, Number.POSITIVE_INFINITY]
  const queue = w.open({
    ...{ ttl: decade, errorTtl: decade, attempts: Infinite, timeout: Infinite, maxStalls: Infinite },
    ...{ maxHold: Infinite, retain: { completed: most, failed: most }, lease: 2 ** 31, maxPayload: 2 ** 29 },
  })
  queue.process('work', (n: number, job) => {
    if (job.attempt < 4) throw new Error('x')
    return n
  })
  assert.equal(await queue.submit('work', 1, { priority: 1_000_000 }), 1)
  const job = await queue.enqueue('work', 2, { delay: decade / 10 })
  assert.equal((await job.status())?.state, 'delayed')
  const huge = await queue.enqueue('work', 3, { attempts: 2, backoff: Number.MAX_SAFE_INTEGER })
  await until(async () => (await huge.status())?.state === 'delayed', { what: 'the attempt to fail' })
  assert.equal(await queue.drain({ delayed: true }), 2)
})

onBothStores('options - a connection or store that is shared outlives the queues on it', async (w) => {
  const connection = w.t && new Connection(w.t.redis)
  const place: QueueOptions = connection ? { redis: connection } : { store: new MemoryQueueStore() }
  const [first, second] = [new RedisQueue('queue', place), new RedisQueue('queue', place)]
  first.process('work', () => 'first')
  assert.equal(await second.submit('work'), 'first')
  await first.close()
  second.process('work', () => 'second')
  assert.equal(await second.submit('work', 2), 'second')
  await second.close()
  await connection?.close()
})
