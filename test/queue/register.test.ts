// The register of queues, and their totals.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import {
  Connection,
  MemoryQueueStore,
  type QueueNamesOptions,
  type QueueTotals,
  RedisQueue,
} from '../../src/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { MAX_QUEUES, REGISTER_TTL } from '../../src/queue/store/register.ts'
import { RedisCluster } from '../support/cluster.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { setup } from '../support/setup.ts'
import { onBothStores, onRedis } from '../support/stores.ts'
import { until } from '../support/wait.ts'

const REGISTER = 'soloflight:1:queues'
const DAY = 24 * 60 * 60_000

/** Resolves when these queues are in the register, in this order. */
async function namesAre(options: QueueNamesOptions, expected: readonly string[]): Promise<void> {
  let names: string[] = []
  const areEqual = async () => {
    names = await RedisQueue.names(options)
    return JSON.stringify(names) === JSON.stringify(expected)
  }
  await until(areEqual, { what: `the names ${JSON.stringify(expected)}` }).catch(() => {
    assert.deepEqual(names, expected)
  })
}

async function totalsAre(queue: RedisQueue, expected: Partial<QueueTotals>): Promise<void> {
  assert.deepEqual(await queue.totals(), {
    submitted: 0,
    completed: 0,
    failed: 0,
    taken: 0,
    returned: 0,
    ...expected,
  })
}

/** Commands that clients have sent to the register. */
async function scriptsRun(server: RedisServer): Promise<number> {
  return (await server.commandStats())['evalsha'] ?? 0
}

onBothStores('totals - created jobs, results, failures and attempts are counted once each', async (w) => {
  const queue = w.open()
  await totalsAre(queue, {})
  queue.process('work', (n: number) => {
    if (n < 0) throw new Error('no')
    return n
  })
  assert.equal(await queue.submit('work', 1), 1)
  await totalsAre(queue, { submitted: 1, completed: 1, taken: 1 })
  assert.equal(await queue.submit('work', 1), 1, 'its result is kept: no new job')
  await totalsAre(queue, { submitted: 1, completed: 1, taken: 1 })
  await assert.rejects(queue.submit('work', -1, { attempts: 3 }), { code: 'E_REMOTE' })
  await totalsAre(queue, { submitted: 2, completed: 1, failed: 1, taken: 4 })
  const together = Array.from({ length: 60 }, (_, index) => queue.submit('work', 10 + (index % 30)))
  await Promise.all(together)
  await totalsAre(w.open(), { submitted: 32, completed: 31, failed: 1, taken: 34 })
  assert.equal(await queue.redrive(), 1)
  await until(async () => (await queue.counts()).failed === 1, { what: 'the second failure' })
  await totalsAre(queue, { submitted: 32, completed: 31, failed: 2, taken: 37 })
})

onBothStores('totals - slow attempts, cancelled, removed and delayed jobs', async (w) => {
  const queue = w.open({ lease: 200 })
  const gate = pDefer()
  queue.process('slow', () => gate.promise)
  const slow = queue.submit('slow', 1)
  const joined = queue.submit('slow', 1)
  await until(async () => (await queue.totals()).taken === 1, { what: 'the attempt to be accepted' })
  // Its lease is renewed several times.
  await new Promise((resolve) => setTimeout(resolve, 300))
  gate.resolve('done')
  assert.deepEqual(await Promise.all([slow, joined]), ['done', 'done'])
  await totalsAre(queue, { submitted: 1, completed: 1, taken: 1 })
  const [cancelled, removed] = await queue.enqueueMany([
    { command: 'nobody', payload: 1 },
    { command: 'nobody', payload: 2, options: { delay: DAY } },
  ])
  assert.ok(await cancelled?.cancel())
  assert.ok(await removed?.remove())
  await totalsAre(queue, { submitted: 3, completed: 1, failed: 1, taken: 1 })
})

onBothStores('totals - a delivery that is given back is not counted', async (w) => {
  const worker = w.open()
  const started = pDefer()
  worker.process('work', (_, job) => {
    started.resolve()
    return new Promise((_, reject) => job.signal.addEventListener('abort', reject))
  })
  const queue = w.open()
  const result = queue.submit('work', 1)
  await started.promise
  const { taken } = await queue.totals()
  await worker.close({ grace: 0 })
  // It was given back.
  await totalsAre(queue, { submitted: 1, taken, returned: taken })
  queue.process('work', () => 'here')
  assert.equal(await result, 'here')
  await totalsAre(queue, { submitted: 1, completed: 1, taken: taken + 1, returned: taken })
})

onBothStores('erase - what waits goes, totals are 0 and the queue leaves the register', async (w) => {
  const queue = w.open({}, 'erased')
  const other = w.open({}, 'other')
  await other.enqueue('nobody', 1)
  await namesAre(w.place, ['other'])
  const gate = pDefer()
  queue.process('slow', () => gate.promise)
  const running = queue.submit('slow', 1)
  await until(async () => (await queue.counts()).active === 1, { what: 'the running job' })
  const waiting = await queue.enqueueMany([
    ...[1, 2, 3].map((payload) => ({ command: 'nobody', payload })),
    { command: 'nobody', payload: 4, options: { delay: DAY } },
  ])
  await namesAre(w.place, ['erased', 'other'])
  await queue.erase()
  await namesAre(w.place, ['other'])
  await totalsAre(queue, {})
  const counts = { waiting: 0, delayed: 0, active: 1, completed: 0, failed: 0 }
  assert.deepEqual(await queue.counts(), counts)
  for (const job of waiting) assert.equal((await job.status())?.state, 'removed')
  gate.resolve('done')
  assert.equal(await running, 'done')
  await totalsAre(queue, { completed: 1, taken: (await queue.totals()).taken })
  // The key of a job that was erased is free.
  assert.equal((await queue.enqueue('nobody', 1)).disposition, 'created')
  await namesAre(w.place, ['erased', 'other'])
  await queue.erase()
  await queue.erase()
  await namesAre(w.place, ['other'])
})

onBothStores(
  'register - a queue is listed by a submission or a worker, and not by a look at it',
  async (w) => {
    await namesAre(w.place, [])
    const looks = w.open({}, 'looks')
    await looks.counts()
    await looks.totals()
    assert.equal(await looks.job('A'.repeat(22)), undefined)
    await looks.pause('work')
    await looks.resume('work')
    await looks.enqueueMany([])
    await assert.rejects(looks.enqueue('work', 1n), { code: 'E_CODEC' })
    await w.open({}, 'enqueues').enqueue('work', 1)
    await namesAre(w.place, ['enqueues'])
    w.open({}, 'processes').process('work', () => 1)
    await namesAre(w.place, ['processes', 'enqueues'])
    await w.open({}, 'many').enqueueMany([{ command: 'work', payload: 1 }])
    await namesAre(w.place, ['many', 'processes', 'enqueues'])
    const submits = w.open({}, 'submits').submit('work', 1)
    submits.catch(() => {})
    await namesAre(w.place, ['submits', 'many', 'processes', 'enqueues'])
    await w.open({}, 'enqueues').enqueue('work', 2)
    await namesAre(w.place, ['enqueues', 'submits', 'many', 'processes'])
    // Prefixes are apart. In memory there are none.
    if (w.kind === 'redis') await namesAre({ ...w.place, prefix: 'other' }, [])
  },
)

onBothStores('register - hostile names are names', async (w) => {
  const names = [
    ...['+inf', '-inf', '(1', '[', '', ' ', '\0', '*', '{', '}', '{x}', 'a\r\nDEL b', "'; return 1 --"],
    ...['../..', '__proto__', 'constructor', '\u{1F600}', 'é', 'e\u0301', '\uFEFF', '%s', '"', '\\', 'null'],
    ...['0', 'soloflight:1:queues', 'x'.repeat(256), '\u{10FFFF}'.repeat(128), 'NX', 'CH', 'INCR'],
  ].filter((name) => name !== '')
  for (const name of names) {
    await w.open({}, name).enqueue('work', 1)
    await until(async () => (await RedisQueue.names(w.place))[0] === name, { what: JSON.stringify(name) })
  }
  assert.deepEqual(await RedisQueue.names(w.place), names.toReversed())
  for (const name of names) await totalsAre(w.open({}, name), { submitted: 1 })
  for (const name of names) await w.open({}, name).erase()
  assert.deepEqual(await RedisQueue.names(w.place), [])
})

test('register - names needs a place, and refuses other options', async () => {
  const refused = { name: 'TypeError' }
  await assert.rejects(RedisQueue.names({}), refused)
  await assert.rejects(RedisQueue.names({ redis: null }), refused)
  await assert.rejects(RedisQueue.names({ redis: undefined }), refused)
  const options = { store: new MemoryQueueStore() }
  await assert.rejects(RedisQueue.names({ ...options, prefix: '{' }), refused)
  await assert.rejects(RedisQueue.names({ ...options, unavailableAfter: 0 }), refused)
  await assert.rejects(RedisQueue.names({ ...options, lease: 1000 } as QueueNamesOptions), refused)
  await assert.rejects(RedisQueue.names({ ...options, redis: 'redis://localhost' }), refused)
  assert.deepEqual(await RedisQueue.names(options), [])
})

describe('register on Redis', () => {
  test('register - one command at first use, and again after 10 minutes of use', async () => {
    await using t = await setup()
    const clock = new ManualClock(Date.now())
    await using connection = new Connection(t.redis, { clock })
    await using queue = new RedisQueue('q', { redis: connection })
    const usedAt = async () => Number(await t.server.call('ZSCORE', REGISTER, 'q'))
    await queue.enqueue('work', 0)
    await until(usedAt, { what: 'the queue to be registered' })
    await t.server.call('ZADD', REGISTER, 1, 'q')
    const before = await scriptsRun(t.server)
    for (let n = 1; n <= 20; n++) await queue.enqueue('work', n)
    clock.advance(10 * 60_000 - 1)
    await queue.enqueue('work', 21)
    await queue.counts()
    assert.equal((await scriptsRun(t.server)) - before, 23)
    assert.equal(await usedAt(), 1)
    clock.advance(1)
    await queue.enqueue('work', 22)
    await until(async () => (await usedAt()) > 1, { what: 'the use to be noted' })
  })

  test('register - every key has an expiry; old queues and those beyond 100,000 are dropped', async () => {
    await using w = await onRedis()
    const { server } = w.t
    const now = Date.now()
    await server.call(
      'ZADD',
      REGISTER,
      now - REGISTER_TTL - 1000,
      'old',
      now - REGISTER_TTL + 60_000,
      'young',
    )
    await namesAre(w.place, ['young'])
    const queue = w.open({}, 'q')
    queue.process('work', (n) => n)
    await queue.submit('work', 1)
    await namesAre(w.place, ['q', 'young'])
    assert.equal(await server.call('ZCARD', REGISTER), 2)
    const life = async (key: string) => Number(await server.call('PTTL', key))
    assert.ok((await life(REGISTER)) > REGISTER_TTL - 60_000)
    const { totals } = new QueueKeys('soloflight', 'q')
    assert.ok((await life(totals)) > 89 * DAY)
    // A worker that lives keeps them, however few jobs there are.
    await server.call('PEXPIRE', totals, 60_000)
    w.open({}, 'q').process('work', (n) => n)
    await until(async () => (await life(totals)) > 89 * DAY, { what: 'the totals to be kept' })
    const fill = `for n = 1, ${MAX_QUEUES} do redis.call('ZADD', KEYS[1], ARGV[1], 'queue ' .. n) end`
    await server.call('EVAL', fill, 1, REGISTER, now - 1000)
    await w.open({}, 'last').enqueue('work', 1)
    await until(async () => (await server.call('ZCARD', REGISTER)) === MAX_QUEUES, { what: 'the bound' })
    const names = await RedisQueue.names(w.place)
    assert.equal(names.length, MAX_QUEUES)
    assert.deepEqual(names.slice(0, 2), ['last', 'q'])
    assert.ok(!names.includes('young'))
  })

  test('totals - many jobs keep the totals of a queue that has no worker', async () => {
    await using w = await onRedis()
    const queue = w.open({}, 'q')
    const { totals } = new QueueKeys('soloflight', 'q')
    const submit = (from: number, count: number) =>
      queue.enqueueMany(Array.from({ length: count }, (_, n) => ({ command: 'nobody', payload: from + n })))
    await submit(0, 1)
    await w.t.server.call('PEXPIRE', totals, 60_000)
    await submit(1, 99)
    assert.ok(Number(await w.t.server.call('PTTL', totals)) <= 60_000)
    await submit(100, 1)
    assert.ok(Number(await w.t.server.call('PTTL', totals)) > 89 * DAY)
    await totalsAre(queue, { submitted: 101 })
  })

  test('register - jobs are submitted and run although the register or the totals cannot be written', async () => {
    await using w = await onRedis()
    const { server } = w.t
    const { totals } = new QueueKeys('soloflight', 'q')
    await server.call('SET', REGISTER, 'hostile')
    await server.call('SET', totals, 'hostile')
    const queue = w.open({}, 'q')
    queue.process('work', (n) => n)
    assert.equal(await queue.submit('work', 1), 1)
    await assert.rejects(RedisQueue.names(w.place), { code: 'E_UNAVAILABLE' })
    await assert.rejects(queue.totals(), { code: 'E_UNAVAILABLE' })
    await server.call('DEL', REGISTER, totals)
    await server.call('HSET', totals, 's', 'many', 'v', '9223372036854775807', 'e', '-', 'x', '1')
    assert.equal(await queue.submit('work', 2), 2)
    const { submitted, failed } = await queue.totals()
    assert.deepEqual({ submitted, failed }, { submitted: 0, failed: 0 })
    await w.open({}, 'q').enqueue('work', 3)
    await namesAre(w.place, ['q'])
  })

  test('register - the order is that of the last use, whichever process it was', async () => {
    await using w = await onRedis()
    await using connection = new Connection(w.t.redis)
    await using queue = new RedisQueue('a', { redis: connection })
    await queue.enqueue('work', 1)
    await namesAre({ redis: connection }, ['a'])
    await w.open({}, 'b').enqueue('work', 1)
    await namesAre({ redis: w.t.url }, ['b', 'a'])
    await queue.enqueue('work', 2)
    assert.ok(await queue.ready().then(() => true), 'a given Connection stays open')
  })
})

test('register - the queues of a cluster, wherever they are', async () => {
  await using cluster = await RedisCluster.start()
  const redis = await cluster.client()
  const queues = Array.from({ length: 8 }, (_, n) => new RedisQueue(`queue ${n} {é}`, { redis }))
  try {
    for (const queue of queues) {
      queue.process('work', (n) => n)
      assert.equal(await queue.submit('work', 1), 1)
    }
    const names = async () => (await RedisQueue.names({ redis })).sort()
    const expected = queues.map(({ name }) => name)
    await until(async () => (await names()).length === queues.length, { what: 'all names' })
    assert.deepEqual(await names(), expected)
    for (const queue of queues) await totalsAre(queue, { submitted: 1, completed: 1, taken: 1 })
    await queues[0]?.erase()
    assert.deepEqual(await names(), expected.slice(1))
    await totalsAre(queues[0] as RedisQueue, {})
  } finally {
    await Promise.all(queues.map((queue) => queue.close()))
  }
})

describe('register in memory', () => {
  test('register - names and totals outlive the jobs and the queue objects, for 30 days', async () => {
    const clock = new ManualClock()
    const store = new MemoryQueueStore({ clock })
    const queue = new RedisQueue('q', { store })
    const job = await queue.enqueue('work', 1)
    await job.cancel()
    await settled()
    await queue.close()
    await clock.pass(DAY)
    await using again = new RedisQueue('q', { store })
    await totalsAre(again, { submitted: 1, failed: 1 })
    assert.deepEqual(await RedisQueue.names({ store }), ['q'])
    await clock.pass(REGISTER_TTL - DAY - 1)
    assert.deepEqual(await RedisQueue.names({ store }), ['q'])
    await clock.pass(1)
    assert.deepEqual(await RedisQueue.names({ store }), [])
  })

  test('register - no more than 100,000 names are kept', async () => {
    const store = new MemoryQueueStore({ clock: new ManualClock() })
    const client = (n: number) => store.connect(`queue ${n}`)
    for (let n = 0; n <= MAX_QUEUES; n++) {
      const one = client(n)
      await one.joinRegister(0)
      one.close()
    }
    await settled()
    const names = await RedisQueue.names({ store })
    assert.equal(names.length, MAX_QUEUES)
    assert.deepEqual([names[0], names.at(-1)], [`queue ${MAX_QUEUES}`, 'queue 1'])
  })
})
