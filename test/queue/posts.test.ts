// Several jobs that are submitted together: all of them, or none, and once.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  CodecError,
  ConflictError,
  type Job,
  MemoryQueueStore,
  OverloadedError,
  RedisQueue,
  TooLargeError,
  UnknownCommandError,
} from '../../src/index.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { onBothStores, onRedis, type QueueWorld, subscribed } from '../support/stores.ts'
import { until } from '../support/wait.ts'

const DAY = 24 * 60 * 60_000
const numbers = (...payloads: unknown[]) => payloads.map((payload) => ({ command: 'n', payload }))
const idsOf = (jobs: readonly Job[]) => jobs.map(({ id }) => id)
const dispositionsOf = (jobs: readonly Job[]) => [...new Set(jobs.map(({ disposition }) => disposition))]

async function waiting(queue: RedisQueue): Promise<number> {
  const { waiting, delayed } = await queue.counts()
  return waiting + delayed
}

onBothStores(
  'posts - enqueueAll submits all in one step, in their order, each a job of its own',
  async (w) => {
    const queue = w.open()
    await subscribed(queue)
    await queue.enqueue('n', 1)
    assert.deepEqual(await queue.enqueueAll([]), [])
    await w.t?.server.resetStats()
    const jobs = await queue.enqueueAll([
      ...numbers(...Array.from({ length: 60 }, () => 1)),
      { command: 'other', payload: { a: 1 }, options: { attempts: 2 } },
      { command: 'other', options: { delay: 50, ttl: 60_000 } },
      { command: 'other', payload: 'first', options: { priority: 1 } },
    ])
    const calls = await w.t?.server.commandStats()
    if (calls) assert.equal((calls['evalsha'] ?? 0) + (calls['eval'] ?? 0), 1)
    assert.deepEqual(dispositionsOf(jobs), ['created'])
    assert.equal(new Set(idsOf(jobs)).size, 63)
    for (const { id } of jobs) assert.match(id, /^[\w-]{22}$/)
    assert.equal(queue.stats().submitted, 64)
    assert.deepEqual(await queue.counts(), { waiting: 63, delayed: 1, active: 0, completed: 0, failed: 0 })
    const order: unknown[] = []
    queue.process('other', (payload, { id }) => void order.push([payload, id]))
    await Promise.all(jobs.slice(60).map((job) => job.result()))
    const [plain, later, first] = idsOf(jobs.slice(60))
    assert.deepEqual(order, [
      ['first', first],
      [{ a: 1 }, plain],
      [undefined, later],
    ])
    queue.process('n', () => {})
    await Promise.all(jobs.slice(0, 60).map((job) => job.result()))
    assert.equal((await queue.totals()).submitted, 64)
  },
)

onBothStores('posts - 1,000 jobs with a priority are delivered in their order', async (w) => {
  const queue = w.open()
  const post = Array.from({ length: 1000 }, (_, payload) => ({
    ...{ command: 'n', payload, options: { priority: 3 } },
  }))
  const jobs = await queue.enqueueAll(post)
  const order: unknown[] = []
  queue.process('n', (payload) => void order.push(payload))
  await Promise.all(jobs.map((job) => job.result()))
  assert.deepEqual(
    order,
    post.map(({ payload }) => payload),
  )
})

onBothStores('posts - none is submitted if one is refused', async (w) => {
  const queue = w.open({ maxPayload: 2000 })
  const full = 'x'.repeat(1998)
  await assert.rejects(queue.enqueueAll(numbers(1, 2n, 3), { dedupe: 'k' }), CodecError)
  await assert.rejects(queue.enqueueAll(numbers(1, `${full}x`, 3), { dedupe: 'k' }), TooLargeError)
  const most = numbers(...Array.from({ length: 1000 }, () => full))
  await assert.rejects(queue.enqueueAll([...most, { command: 'n', payload: 1 }], { dedupe: 'k' }), {
    message: 'The post has 1001 jobs; at most 1000 are submitted together',
  })
  const roomy = w.open()
  const over = numbers(...Array.from({ length: 3 }, () => 'x'.repeat(700_000)))
  await assert.rejects(roomy.enqueueAll(over, { dedupe: 'k' }), {
    code: 'E_TOO_LARGE',
    message: 'The post has 2100006 bytes; at most 2097152 are submitted together',
  })
  assert.equal(await waiting(queue), 0)
  assert.equal((await queue.enqueueAll(most)).length, 1000)
  await queue.drain()
  const choosy = w.open({ unknownCommands: 'refuse' })
  choosy.process('known', () => 1)
  const unknown = [{ command: 'known' }, { command: 'unknown' }, { command: 'known' }]
  await until(() => choosy.submit('known'), { what: 'the worker to be known' })
  await assert.rejects(choosy.enqueueAll(unknown, { dedupe: 'k' }), (error) => {
    assert.ok(error instanceof UnknownCommandError)
    assert.match(error.message, /`unknown`/)
    return true
  })
  assert.equal(await waiting(queue), 0)
  assert.equal((await queue.totals()).submitted, 1001)
  // The key is free.
  assert.deepEqual(dispositionsOf(await queue.enqueueAll(numbers(1), { dedupe: 'k' })), ['created'])
})

/** Posts that differ from `[1, 1, 2]`. */
const OTHERS: Record<string, { command: string; payload: unknown }[]> = {
  'a part': numbers(1, 1),
  'the first': numbers(1),
  nothing: [],
  'one more': numbers(1, 1, 2, 3),
  'another payload': numbers(1, 7, 2),
  'another order': numbers(2, 1, 1),
  'another command': [...numbers(1, 1), { command: 'm', payload: 2 }],
}

async function othersAreRefused(queue: RedisQueue): Promise<void> {
  for (const [what, post] of Object.entries(OTHERS))
    await assert.rejects(queue.enqueueAll(post, { dedupe: 'k' }), ConflictError, what)
}

onBothStores(
  'S6 posts - the same post under a key is one post, any other is refused as a whole',
  async (w) => {
    const queues = [w.open(), w.open()] as const
    const [here, there] = queues
    const post = numbers(1, 1, 2)
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => queues[(n % 2) as 0 | 1].enqueueAll(post, { dedupe: 'k' })),
    )
    const [first = []] = answers
    assert.equal(answers.filter((jobs) => dispositionsOf(jobs)[0] === 'created').length, 1)
    for (const jobs of answers) assert.deepEqual(idsOf(jobs), idsOf(first))
    for (const jobs of answers) assert.equal(dispositionsOf(jobs).length, 1)
    await othersAreRefused(there)
    assert.equal(await waiting(here), 3)
    // Other keys, no key, and the key of a single job are something else.
    for (const options of [{ dedupe: 'other' }, {}, { dedupe: false } as const])
      assert.deepEqual(dispositionsOf(await here.enqueueAll(post, options)), ['created'])
    assert.equal((await here.enqueue('n', 5, { dedupe: 'k' })).disposition, 'created')
    here.process('n', (payload) => payload)
    assert.deepEqual(await Promise.all(first.map((job) => job.result())), [1, 1, 2])
    await until(async () => (await waiting(there)) === 0, { what: 'the others to run' })
    // Its jobs are over, and in part removed: it is known all the same.
    await there.remove(first[0]?.id ?? '')
    const again = await there.enqueueAll(post, { dedupe: 'k' })
    assert.deepEqual([idsOf(again), dispositionsOf(again)], [idsOf(first), ['joined']])
    assert.deepEqual(await again[2]?.result(), 2)
    await othersAreRefused(here)
    assert.equal(await waiting(here), 0)
    // Options are no part of it.
    const options = { priority: 2, delay: 5 }
    const other = await there.enqueueAll(
      post.map((job) => ({ ...job, options })),
      { dedupe: 'k' },
    )
    assert.deepEqual(idsOf(other), idsOf(first))
  },
)

test('S6 posts - results of a post with a key are kept as those of other jobs with a key', async () => {
  await using w = await onRedis()
  const queue = w.open({ ttl: 60_000 })
  queue.process('n', (payload) => payload)
  const [single] = await queue.enqueueAll(numbers(1))
  const [keyed] = await queue.enqueueAll(numbers(2), { dedupe: 'k' })
  assert.deepEqual([await single?.result(), await keyed?.result()], [1, 2])
  const client = await w.t.client()
  const left = (id = '') => client.pttl(`soloflight:1:{queue}j/${id}`)
  assert.ok((await left(single?.id)) <= 15_000)
  assert.ok((await left(keyed?.id)) > 15_000)
})

onBothStores('posts - an erased queue knows no post', async (w) => {
  const [here, there] = [w.open(), w.open()]
  const before = await here.enqueueAll(numbers(1, 2), { dedupe: 'k' })
  await there.drain()
  // The jobs were removed, and the post was made.
  assert.deepEqual(idsOf(await there.enqueueAll(numbers(1, 2), { dedupe: 'k' })), idsOf(before))
  assert.equal(await waiting(here), 0)
  for (let round = 0; round < 3; round++) {
    await there.erase()
    const after = await here.enqueueAll(numbers(3), { dedupe: 'k' })
    assert.deepEqual(dispositionsOf(after), ['created'])
    assert.deepEqual(idsOf(await there.enqueueAll(numbers(3), { dedupe: 'k' })), idsOf(after))
    assert.equal(await waiting(there), 1)
  }
})

onBothStores(
  'posts - options of a post and of its jobs are checked before anything is submitted',
  async (w) => {
    const queue = w.open()
    const refused = async (job: object, options: object, message: RegExp) =>
      assert.rejects(queue.enqueueAll([{ command: 'n' }, job as { command: 'n' }], options), (error) => {
        assert.ok(error instanceof TypeError, String(error))
        assert.match(error.message, message)
        return true
      })
    const job = { command: 'n' }
    for (const dedupe of ['', 5, null, true]) await refused(job, { dedupe }, /`dedupe` to be a key or false/)
    await refused(job, { dedup: 'k' }, /did you mean `dedupe`/)
    for (const options of [{ dedupe: 'k' }, { conflict: 'join' }, { timeout: 5 }, { onProgress: () => {} }])
      await refused({ ...job, options }, {}, /^Unknown option/)
    await refused({ ...job, options: { priority: -1 } }, {}, /`priority`/)
    await refused({ command: '' }, {}, /`command`/)
    assert.equal(await waiting(queue), 0)
    await queue.close()
    await assert.rejects(queue.enqueueAll([]), { code: 'E_CLOSED' })
  },
)

async function assertFreeAgain(w: Pick<QueueWorld, 'place'>, forget: () => Promise<unknown>): Promise<void> {
  await using queue = new RedisQueue('queue', { ...w.place, ttl: 100 * DAY })
  const before = await queue.enqueueAll(numbers(1), { dedupe: 'k' })
  await forget()
  const after = await queue.enqueueAll(numbers(2, 3), { dedupe: 'k' })
  assert.deepEqual(dispositionsOf(after), ['created'])
  assert.equal(await waiting(queue), 3)
  assert.equal(new Set(idsOf([...before, ...after])).size, 3)
}

test('posts - a key is known for a day, in memory', async () => {
  const clock = new ManualClock()
  const store = new MemoryQueueStore({ clock })
  await assertFreeAgain({ place: { store } }, async () => {
    await using queue = new RedisQueue('queue', { store })
    clock.advance(DAY - 1)
    assert.deepEqual(dispositionsOf(await queue.enqueueAll(numbers(1), { dedupe: 'k' })), ['joined'])
    clock.advance(1)
  })
})

test('posts - a key is known for a day, and a post without one as long as it may be sent again, on Redis', async () => {
  await using w = await onRedis()
  const client = await w.t.client()
  const known = async () => {
    const [key = '', ...others] = await client.keys('soloflight:1:{queue}b/*')
    assert.deepEqual(others, [])
    return { key, left: await client.pttl(key) }
  }
  await assertFreeAgain(w, async () => {
    const { key, left } = await known()
    assert.ok(left > DAY - 60_000 && left <= DAY, `${left} ms`)
    await client.pexpire(key, 0)
  })
  await client.flushall()
  await w.open().enqueueAll(numbers(1))
  const { left } = await known()
  assert.ok(left > 30_000 && left <= 60_000, `${left} ms`)
})

test('posts - a store in memory that is full takes none of a post, and forgets old posts for new jobs', async () => {
  const store = new MemoryQueueStore({ maxBytes: 100_000 })
  await using queue = new RedisQueue('queue', { store })
  const post = numbers(...Array.from({ length: 60 }, () => 'x'.repeat(300)))
  const first = await queue.enqueueAll(post, { dedupe: 'k' })
  await assert.rejects(queue.enqueueAll(post, { dedupe: 'other' }), OverloadedError)
  assert.equal(await waiting(queue), 60)
  // It is known, whether there is room or not.
  assert.deepEqual(idsOf(await queue.enqueueAll(post, { dedupe: 'k' })), idsOf(first))
  await queue.drain()
  for (let n = 0; n < 300; n++) await queue.enqueueAll([], { dedupe: `${n}` })
  assert.deepEqual(dispositionsOf(await queue.enqueueAll(numbers(1), { dedupe: 'k' })), ['created'])
})
