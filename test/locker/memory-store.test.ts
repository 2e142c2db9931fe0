import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Locker, MemoryStore } from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import type { Claim, ClaimReply, Notice, Store } from '../../src/locker/store/store.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { until } from '../support/wait.ts'

const WITHIN = 1000
const VALUE = { kind: 'value' as const, outcomeRetention: 100, keepStale: 0, tags: '', bypassFor: 0 }

/** A process that calls the store directly. */
class Process {
  readonly store: Store
  readonly nonce = newId()
  readonly heard: Notice[] = []
  #attempt = 0

  constructor(memory: MemoryStore) {
    this.store = memory.connect()
  }

  claim(key: string, options: Partial<Claim> = {}): Promise<ClaimReply> {
    const plain = { lease: 1000, afterFence: 0, parkedFence: 0, refresh: false, takeover: true, trace: '' }
    const content = {
      maxStaleness: 0,
      acceptStaleWhileHeld: 0,
      allowBypass: true,
      expectedFence: 0,
      waitOnly: false,
    }
    const claim = {
      record: key,
      nonce: this.nonce,
      attempt: ++this.#attempt,
      ...plain,
      ...content,
      ...options,
    }
    return new Promise((resolve, reject) => {
      const notice = (notice: Notice) => this.heard.push(notice)
      this.store.claim(claim, 1000, { sending() {}, claimed: resolve, claimFailed: reject, notice })
    })
  }

  /** Claims a key that is free, and resolves to the grant. */
  async grant(key: string) {
    const reply = await this.claim(key)
    assert.ok(reply.status === 'granted', 'reply.status === "granted"')
    return { record: key, nonce: this.nonce, attempt: this.#attempt, fence: reply.fence }
  }
}

test('memory store - lockers that share a store behave like processes: one work, one result', async () => {
  const store = new MemoryStore()
  const lockers = Array.from({ length: 20 }, () => new Locker({ store }))
  let works = 0
  const results = await Promise.all(lockers.map((locker) => locker.run('key', async () => ++works)))
  assert.deepEqual(results, Array(20).fill(1))
  await Promise.all(lockers.map((locker) => locker.close()))
})

test('memory store - two memory stores share nothing', async () => {
  await using one = new Locker({ store: new MemoryStore() })
  await using other = new Locker({ store: new MemoryStore() })
  assert.deepEqual([await one.run('key', () => 1), await other.run('key', () => 2)], [1, 2])
})

test('L5 memory store - expired records are removed, and an idle store has no timer', async () => {
  const clock = new ManualClock()
  const memory = new MemoryStore({ clock })
  const process = new Process(memory)
  for (let index = 0; index < 100; index++) {
    const grant = await process.grant(`key${index}`)
    const settlement = { ...VALUE, bytes: Buffer.from('x'), ttl: 500 + index }
    await process.store.settle({ ...grant, ...settlement }, WITHIN)
  }
  assert.equal(memory.size, 100)
  assert.equal(clock.pending, 1)
  clock.advance(1000)
  assert.equal(memory.size, 0)
  assert.equal(clock.pending, 0)
})

test('L5 memory store - versions of tags are removed', async () => {
  const clock = new ManualClock()
  const { store } = new Process(new MemoryStore({ clock }))
  const [version] = await store.tagVersions(['tag'], 1500, WITHIN)
  clock.advance(1000)
  assert.deepEqual([await store.tagVersions(['tag'], 0, WITHIN), clock.pending], [[version], 1])
  clock.advance(1000)
  assert.deepEqual([await store.tagVersions(['tag'], 0, WITHIN), clock.pending], [[0], 0])
})

test('memory store - a holder that asked for it is notified when the last parked waiter leaves', async () => {
  const memory = new MemoryStore()
  const [holder, first, second] = [new Process(memory), new Process(memory), new Process(memory)]
  const grant = await holder.grant('key')
  const waiting = [first, second]
  for (const process of waiting) assert.equal((await process.claim('key')).status, 'parked')
  assert.equal(await holder.store.releaseIfUnwanted({ ...grant, outcomeRetention: 1000 }, WITHIN), 'wanted')
  await until(() => second.heard.length, { what: 'the question' })
  assert.deepEqual([first.heard, second.heard], Array(2).fill([{ kind: 'probe' }]))
  await first.store.unpark('key', first.nonce, WITHIN)
  await new Promise(setImmediate)
  assert.deepEqual(holder.heard, [], 'one is still there')
  await second.store.unpark('key', second.nonce, WITHIN)
  await until(() => holder.heard.length, { what: 'the message' })
  assert.deepEqual(holder.heard, [{ kind: 'unwanted' }])
  assert.equal(await holder.store.releaseIfUnwanted({ ...grant, outcomeRetention: 1000 }, WITHIN), 'released')
  assert.equal((await first.claim('key')).status, 'granted')
})

test('memory store - a lease is released although the process of a parked waiter has gone', async () => {
  const memory = new MemoryStore()
  const [holder, gone] = [new Process(memory), new Process(memory)]
  const grant = await holder.grant('key')
  assert.equal((await gone.claim('key')).status, 'parked')
  gone.store.close()
  assert.equal(await holder.store.releaseIfUnwanted({ ...grant, outcomeRetention: 1000 }, WITHIN), 'released')
})

test('L5 memory store - beyond maxRecords the oldest results are evicted, held records never', async () => {
  const memory = new MemoryStore({ maxRecords: 10 })
  await using locker = new Locker({ store: memory, cache: false })
  const gate = pDefer<string>()
  const running = locker.run('running', () => gate.promise)
  for (let index = 0; index < 50; index++) await locker.run(`key${index}`, () => index)
  assert.ok(memory.size <= 11, 'memory.size <= 11')
  assert.equal((await locker.peek('running')).status, 'locked')
  assert.equal((await locker.peek('key0')).status, 'free')
  assert.equal(await locker.run('key49', () => 'unused'), 49)
  gate.resolve('done')
  assert.equal(await running, 'done')
})

test('L5 memory store - beyond maxRecords, a record with a waiter is not evicted', async () => {
  const memory = new MemoryStore({ maxRecords: 5 })
  const [holder, first, second] = [new Process(memory), new Process(memory), new Process(memory)]
  const grant = await holder.grant('waited for')
  for (const waiting of [first, second]) assert.equal((await waiting.claim('waited for')).status, 'parked')
  await holder.store.release(
    { ...grant, outcomeRetention: 60_000, asExpired: false, regrant: undefined },
    WITHIN,
  )
  await until(() => first.heard.length, { what: 'the hint' })
  for (let index = 0; index < 20; index++) await new Process(memory).grant(`key${index}`)
  await using locker = new Locker({ store: memory, cache: false })
  for (let index = 0; index < 20; index++) await locker.run(`done${index}`, () => index)
  const parks = memory.find('waited for')?.parks.size
  assert.equal(parks, 2, 'both are still parked')
})

test('memory store - on release, a waiter whose process has gone is skipped', async () => {
  const memory = new MemoryStore()
  const [holder, gone, next] = [new Process(memory), new Process(memory), new Process(memory)]
  const grant = await holder.grant('key')
  for (const waiting of [gone, next]) assert.equal((await waiting.claim('key')).status, 'parked')
  gone.store.close()
  await holder.store.release(
    { ...grant, outcomeRetention: 1000, asExpired: false, regrant: undefined },
    WITHIN,
  )
  await until(() => next.heard.length, { what: 'the hint' })
  assert.deepEqual([gone.heard, next.heard], [[], [{ kind: 'free' }]])
  assert.equal((await next.claim('key')).status, 'granted')
})

test('L5 memory store - the number of flights that park on one record is bounded', async () => {
  const memory = new MemoryStore({ maxParked: 2 })
  await using holder = new Locker({ store: memory })
  const gate = pDefer<string>()
  const running = holder.run('key', () => gate.promise)
  await until(async () => (await holder.peek('key')).status === 'locked', { what: 'the claim' })
  const others = Array.from({ length: 3 }, () => new Locker({ store: memory }))
  const waits = others.map((locker) => locker.run('key', () => 'x'))
  await assert.rejects(waits[2] ?? running, { code: 'E_OVERLOADED', key: 'key' })
  gate.resolve('done')
  assert.deepEqual(await Promise.all([running, waits[0], waits[1]]), ['done', 'done', 'done'])
  await Promise.all(others.map((locker) => locker.close()))
})

test('L3 memory store - a lost message delays a waiter until the lease ends', async () => {
  let losing = false
  const deliver = (message: () => void) => {
    if (!losing) queueMicrotask(message)
  }
  const store = new MemoryStore({ deliver })
  await using one = new Locker({ store, lease: 300, ttl: 0 })
  await using other = new Locker({ store, lease: 300, ttl: 0 })
  const gate = pDefer<string>()
  const running = one.run('key', () => gate.promise)
  await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
  const waits = other.run('key', () => 'the work was done twice')
  await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
  losing = true
  const from = performance.now()
  gate.resolve('done')
  assert.deepEqual(await Promise.all([running, waits]), ['done', 'done'])
  assert.ok(performance.now() - from < 300 + 500, 'performance.now() - from < 300 + 500')
})

test('memory store - messages that are late, repeated or reordered settle no waiter wrongly', async () => {
  const held: (() => void)[] = []
  const store = new MemoryStore({ deliver: (message) => held.push(message) })
  await using one = new Locker({ store, lease: 200 })
  await using other = new Locker({ store, lease: 200 })
  for (const round of [1, 2, 3]) {
    const gate = pDefer<number>()
    const running = one.run('key', () => gate.promise, { ttl: 0 })
    await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
    const waits = other.run('key', () => -1, { ttl: 0 })
    await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
    for (const message of [...held].reverse()) message()
    gate.resolve(round)
    await running
    for (const message of [...held, ...held]) message()
    assert.equal(await waits, round)
  }
})
