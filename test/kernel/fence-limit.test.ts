// Numbers that only grow, near the largest exact integer: anybody who can write to Redis can set them. Only the record
// that contains the number is affected.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Locker, MemoryStore, RemoteError, UnavailableError } from '../../src/index.ts'
import { newId, recordKey } from '../../src/kernel/keys.ts'
import { SERVER_CLOCK } from '../../src/kernel/redis/call.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import { FenceWatermark } from '../../src/kernel/redis/server.ts'
import { RedisStore } from '../../src/locker/store/redis/redis-store.ts'
import { buildScripts } from '../../src/locker/store/redis/scripts/index.ts'
import { SERVER_TIME } from '../../src/locker/store/redis/scripts/prelude.ts'
import { ANY_STALENESS, type ClaimReply, type Store } from '../../src/locker/store/store.ts'
import { type Setup, setup } from '../support/setup.ts'
import { onRedis, outcomeOf } from '../support/stores.ts'
import { until } from '../support/wait.ts'

const MAX = Number.MAX_SAFE_INTEGER
const DAY = 24 * 60 * 60_000
const WITHIN = 5000

async function lockersOn(t: Setup) {
  const lockers = [1, 2].map(() => new Locker({ redis: t.redis, cache: false, timeout: 3000, lease: 1000 }))
  for (const locker of lockers) {
    await locker.run('warm', () => 1)
    await until(() => locker.stats().subscribed, { what: 'the subscription' })
  }
  return {
    here: lockers[0] as Locker,
    there: lockers[1] as Locker,
    async [Symbol.asyncDispose]() {
      await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
    },
  }
}

/** The fence of one more run. */
function fenceOf(locker: Locker, key: string): Promise<number> {
  return locker.run(key, ({ fence }) => fence, { refresh: true })
}

function assertOfToday(fence: number): void {
  const now = Date.now() * 1000
  assert.ok(Math.abs(fence - now) < DAY * 1000, `${fence} is none of today`)
}

test('L1 fence limit - a forged fence concerns its key alone, however it is seen', async () => {
  await using t = await setup()
  await using w = await lockersOn(t)
  const { here, there } = w
  const forge = (key: string, ...more: (string | number)[]) =>
    t.server.call('HSET', recordKey('soloflight', key), 'f', MAX - 50, ...more)
  // A new grant.
  await forge('granted')
  assert.ok((await fenceOf(here, 'granted')) > MAX - 50)
  assertOfToday(await fenceOf(here, 'other'))
  // A regrant to the next waiter of this process.
  await forge('again')
  const ticket = await here.request('again')
  assert.ok(ticket.status === 'locked')
  const next = here.request('again')
  await until(() => here.stats().waiters === 1, { what: 'the next to wait' })
  await ticket.release()
  const second = await next
  assert.ok(second.status === 'locked' && second.fence > ticket.fence)
  await second.release()
  assertOfToday(await fenceOf(here, 'another'))
  // A grant after waiting.
  await forge('parked', 'o', 'somebody', 'u', Date.now() + 500, 'l', 100, 'h', 'host:1', 'n', 0)
  assert.ok((await fenceOf(here, 'parked')) > MAX - 50)
  assertOfToday(await fenceOf(here, 'a third'))
  // A grant in a process that has not seen any of the fences.
  assertOfToday(await fenceOf(there, 'a fourth'))
})

test('S1 fence limit - a key goes on as long as fences are exact, then its error names key and record', async () => {
  await using t = await setup()
  await using w = await lockersOn(t)
  const { here, there } = w
  const record = recordKey('soloflight', 'key')
  await t.server.call('HSET', record, 'f', MAX - 3)
  const fences: number[] = []
  for (const locker of [here, there, here]) fences.push(await fenceOf(locker, 'key'))
  assert.deepEqual(fences, [MAX - 2, MAX - 1, MAX])
  for (const locker of [here, there]) {
    const { error } = await outcomeOf(fenceOf(locker, 'key'))
    assert.ok(error instanceof UnavailableError, String(error))
    assert.equal(error.key, 'key')
    assert.ok(error.message.includes('`key`') && error.message.includes(record), error.message)
    assertOfToday(await fenceOf(locker, 'other'))
  }
  assert.equal(await here.run('key', () => 'unused'), MAX, 'what is fresh is served')
  await t.server.call('DEL', record)
  assertOfToday(await fenceOf(here, 'key'))
  for (const text of ['9007199254740993', '1e300', 'inf', 'nan']) {
    await t.server.call('HSET', record, 'f', text)
    const { error } = await outcomeOf(fenceOf(here, 'key'))
    assert.ok(error instanceof UnavailableError && error.key === 'key', `${text}: ${error}`)
  }
  assert.deepEqual([here.stats().waiters, there.stats().waiters], [0, 0])
})

test('L1 fence limit - parked waiters and the next waiter of this process get the error as well', async () => {
  await using t = await setup()
  await using w = await lockersOn(t)
  const { here, there } = w
  await t.server.call('HSET', recordKey('soloflight', 'key'), 'f', MAX - 1)
  const ticket = await here.request('key')
  assert.ok(ticket.status === 'locked' && ticket.fence === MAX)
  const waiting = [here, there].map((each) => outcomeOf(each.run('key', () => 'never')))
  await until(async () => (await here.peek('key')).lock?.parked === 1, { what: 'the other to be parked' })
  await until(() => here.stats().waiters === 1, { what: 'the next to wait' })
  await ticket.release()
  for (const { error } of await Promise.all(waiting)) {
    assert.ok(error instanceof UnavailableError && error.key === 'key', String(error))
  }
})

test('L1 fence limit - the memory store returns the same error', async () => {
  const store = new MemoryStore()
  await using locker = new Locker({ store, cache: false })
  store.apply(recordKey('soloflight', 'key'), (record, at) => {
    record.fence = MAX - 1
    record.expiresAt = at.now + 60_000
  })
  const ticket = await locker.request('key')
  assert.ok(ticket.status === 'locked' && ticket.fence === MAX)
  const next = outcomeOf(locker.run('key', () => 'never'))
  await ticket.release()
  for (const { error } of [await next, await outcomeOf(fenceOf(locker, 'key'))]) {
    assert.ok(error instanceof UnavailableError && /`key`/.test(error.message), String(error))
  }
  assertOfToday(await fenceOf(locker, 'other'))
})

test('S1 fence limit - a server clock that steps back stops no claims, and fences go on', async () => {
  await using t = await setup()
  await t.server.call('SET', 'skew', 0)
  const clock = `${SERVER_CLOCK}
us = us + redis.call('GET', 'skew') * 1000
now = math.floor(us / 1000)`
  const connection = new Connection(t.redis)
  const store = new RedisStore(connection, { scripts: buildScripts({ ...SERVER_TIME, clock }) })
  try {
    const last = new Map<string, number>()
    const grant = async (key: string) => {
      const grant = { record: key, nonce: newId(), attempt: 1 }
      const reply = await claimed(store, grant)
      assert.ok(reply.status === 'granted', reply.status)
      assert.ok(reply.fence > (last.get(key) ?? 0), `${key}: ${reply.fence} after ${last.get(key)}`)
      last.set(key, reply.fence)
      await store.release(
        { ...grant, fence: reply.fence, outcomeRetention: 1, asExpired: false, regrant: undefined },
        WITHIN,
      )
    }
    for (const days of [0, -3, -30, 2, -400, 10]) {
      await t.server.call('SET', 'skew', days * DAY)
      for (const key of ['one', 'other', `new ${days}`, 'one', 'other']) await grant(key)
    }
    // The record is lost and the clock was set back, but this process has seen the fence.
    await t.server.call('SET', 'skew', 9.5 * DAY)
    await t.server.call('DEL', 'one')
    await grant('one')
  } finally {
    await connection.close()
  }
})

function claimed(
  store: Store,
  grant: { record: string; nonce: string; attempt: number },
): Promise<ClaimReply> {
  const wants = {
    refresh: true,
    takeover: true,
    maxStaleness: ANY_STALENESS,
    acceptStaleWhileHeld: 0,
    allowBypass: true,
    expectedFence: 0,
    waitOnly: false,
    trace: '',
  }
  return new Promise((resolve, reject) =>
    store.claim({ ...grant, lease: 1000, afterFence: 0, parkedFence: 0, ...wants }, WITHIN, {
      sending() {},
      claimed: resolve,
      claimFailed: reject,
      notice() {},
    }),
  )
}

test('fence limit - a process remembers the highest fence that the time of the server explains', () => {
  const clock = { estimate: 1_700_000_000_000 }
  const memory = new FenceWatermark(clock)
  const at = (ms: number) => (clock.estimate + ms) * 1000
  for (const fence of [at(DAY) + 1, MAX, Number.NaN, Number.POSITIVE_INFINITY]) memory.observe(fence)
  assert.equal(memory.highest, 0)
  memory.observe(at(DAY))
  memory.observe(at(0))
  assert.equal(memory.highest, at(DAY))
  const before = memory.highest
  clock.estimate -= 10 * DAY
  memory.observe(before + DAY)
  assert.equal(memory.highest, before, 'what was seen in its time stays')
  memory.observe(before + 1)
  assert.equal(memory.highest, before + 1, 'and is counted on from')
})

test('S4 fence limit - an invalidation of a record with an impossible fence reaches all caches', async () => {
  await using t = await setup()
  await using here = new Locker({ redis: t.redis })
  await using there = new Locker({ redis: t.redis })
  await Promise.all([here.ready(), there.ready()])
  for (const text of ['1e300', 'inf', 'nan', '9007199254740993']) {
    const key = `key ${text}`
    await here.run(key, () => 'old')
    assert.equal(await there.run(key, () => 'unused'), 'old')
    await t.server.call('HSET', recordKey('soloflight', key), 'f', text)
    await here.invalidate(key)
    await t.server.call('DEL', recordKey('soloflight', key))
    await until(async () => (await there.run(key, () => 'new')) === 'new', { what: `${text} to be dropped` })
  }
})

test('S4 fence limit - a result of a forged fence is not cached in a process: its replacement is served', async () => {
  await using t = await setup()
  await using here = new Locker({ redis: t.redis, ttl: 60_000 })
  await using there = new Locker({ redis: t.redis })
  await Promise.all([here.ready(), there.ready()])
  const record = recordKey('soloflight', 'key')
  await t.server.call('HSET', record, 'f', MAX - 50)
  // In the result, in the message to waiters, and in the record.
  const gate = pDefer<string>()
  const results = [here.run('key', () => gate.promise)]
  await until(async () => (await there.peek('key')).status === 'locked', { what: 'the work to run' })
  results.push(there.run('key', () => 'unused'))
  await until(async () => (await here.peek('key')).lock?.parked === 1, { what: 'the other to wait' })
  gate.resolve('forged')
  assert.deepEqual(await Promise.all(results), ['forged', 'forged'])
  for (const locker of [here, there]) {
    assert.equal(await locker.run('key', () => 'unused'), 'forged')
    assert.equal(locker.stats().cached, 0)
  }
  await t.server.call('DEL', record)
  assert.equal(await there.run('key', () => 'true'), 'true')
  assert.equal(await here.run('key', () => 'unused'), 'true')
  assert.deepEqual([here.stats().cached, there.stats().cached], [1, 1])
})

test('S4 fence limit - an epoch that can grow no more refuses the invalidation of its tag, and of no other', async () => {
  await using t = await setup()
  await using locker = new Locker({ redis: t.redis })
  for (const tag of ['bad', 'good']) await locker.run(`of ${tag}`, () => 1, { tags: [tag] })
  const keys = (await t.server.call('KEYS', '*t/bad')) as string[]
  assert.equal(keys.length, 1)
  const [key = ''] = keys
  for (const text of [String(MAX), '1e300', 'nan']) {
    await t.server.call('SET', key, text)
    const { error } = await outcomeOf(locker.invalidateTags('bad'))
    assert.ok(error instanceof UnavailableError && error.message.includes(key), `${text}: ${error}`)
  }
  await locker.invalidateTags('good')
  assert.equal(await locker.run('of good', () => 2, { tags: ['good'] }), 2)
  await t.server.call('SET', key, MAX - 1)
  await locker.invalidateTags('bad')
})

const job = (id: string) => `soloflight:1:{queue}j/${id}`

test('S1 fence limit - a forged fence of a job concerns that job alone', async () => {
  await using w = await onRedis()
  const [here, there] = [w.open(), w.open({ attempts: 3 })]
  const fences = new Map<string, number[]>()
  here.process('work', (name, { fence }) => {
    fences.set(String(name), [...(fences.get(String(name)) ?? []), fence])
    if (name === 'forged' && fences.get('forged')?.length !== 3) throw new Error('once more')
    return name
  })
  await there.submit('work', 'first')
  await there.pause()
  const forged = await there.enqueue('work', 'forged')
  await w.t.server.call('HSET', job(forged.id), 'f', MAX - 3)
  await there.resume()
  assert.equal(await forged.result(), 'forged')
  assert.deepEqual(fences.get('forged'), [MAX - 2, MAX - 1, MAX])
  for (const name of ['second', 'third']) {
    assert.equal(await here.submit('work', name), name)
    assertOfToday(fences.get(name)?.[0] ?? 0)
  }
})

test('L1 fence limit - a job whose fence can grow no more fails, by name, and holds up no other', async () => {
  await using w = await onRedis()
  const [here, there] = [w.open({ lease: 1000 }), w.open()]
  const ran: unknown[] = []
  await there.pause()
  const spent = []
  for (const text of [String(MAX), '1e300', 'nan']) {
    const made = await there.enqueue('work', text)
    await w.t.server.call('HSET', job(made.id), 'f', text)
    spent.push(made)
  }
  const good = there.submit('work', 'good')
  here.process('work', (name) => ran.push(name) && name)
  await there.resume()
  assert.equal(await good, 'good')
  for (const each of spent) {
    const { error } = await outcomeOf(each.result({ timeout: 10_000 }))
    assert.ok(error instanceof RemoteError, String(error))
    assert.equal(error.key, each.id)
    assert.match(error.message, new RegExp(`job ${each.id} can be run no more`))
  }
  assert.deepEqual(ran, ['good'])
  assert.deepEqual(await there.counts(), { waiting: 0, delayed: 0, active: 0, completed: 0, failed: 3 })
})

test('L1 fence limit - a job whose generation can grow no more is refused, by name', async () => {
  await using w = await onRedis()
  const [here, there] = [w.open(), w.open({ ttl: 0, conflict: 'rerun' })]
  let gate = pDefer<unknown>()
  here.process('work', () => gate.promise)
  gate.resolve(1)
  assert.equal(await there.submit('work', 1, { dedupe: 'key' }), 1)
  const { id } = await there.enqueue('work', 1, { dedupe: 'key' })
  await until(async () => (await there.counts()).active === 0, { what: 'all to be over' })
  await w.t.server.call('HSET', job(id), 'y', MAX, 'Y', MAX)
  const refused = async (asked: Promise<unknown>) => {
    const { error } = await outcomeOf(asked)
    assert.ok(error instanceof UnavailableError, String(error))
    assert.match(error.message, new RegExp(`job ${id} can be run no more`))
  }
  await refused(there.submit('work', 2, { dedupe: 'key' }))
  await refused(there.enqueue('work', 2, { dedupe: 'key' }))
  await refused(there.retry(id))
  // A rerun of a running job.
  await w.t.server.call('DEL', job(id))
  gate = pDefer()
  const running = there.submit('work', 1, { dedupe: 'key' })
  await until(() => here.stats().running === 1, { what: 'the job to run' })
  await w.t.server.call('HSET', job(id), 'y', MAX)
  await refused(there.submit('work', 2, { dedupe: 'key' }))
  gate.resolve(2)
  running.catch(() => {})
  assert.equal(await there.submit('work', 'other'), 2)
})

test('L1 fence limit - times and counts that are too large harm no other job', async () => {
  await using w = await onRedis()
  const retain = { completed: { count: 2, age: 60_000 }, failed: { count: 2, age: 60_000 } }
  const [here, there] = [w.open({ retain }), w.open({ attempts: 2 })]
  here.process('work', (name) => (String(name).startsWith('bad') ? Promise.reject(new Error('no')) : name), {
    concurrency: 4,
  })
  await there.pause()
  const names = ['bad 1', 'bad 2', 'good 1', 'good 2']
  const made = await Promise.all(names.map((name) => there.enqueue('work', name)))
  await w.t.server.call('HSET', job(made[0]?.id ?? ''), 'a', '9223372036854775807')
  const settled = Promise.allSettled(made.map((each) => each.result({ timeout: 5000 })))
  await there.resume()
  assert.deepEqual(
    (await settled).map(({ status }) => status),
    ['rejected', 'rejected', 'fulfilled', 'fulfilled'],
  )
  for (const set of ['x', 'c']) {
    await w.t.server.call('ZADD', `soloflight:1:{queue}${set}`, '1e300', 'forged', 'inf', 'forged too')
    await w.t.server.call('HSET', job('forged'), 'y', 1, 'Y', 1, 'vu', '1e300', 'eu', 'nan')
  }
  for (const name of ['bad 3', 'bad 4', 'good 3', 'good 4'] as const) {
    const { error } = await outcomeOf(there.submit('work', name, { timeout: 5000 }))
    assert.equal(error instanceof RemoteError, name.startsWith('bad'), `${name}: ${error}`)
  }
})
