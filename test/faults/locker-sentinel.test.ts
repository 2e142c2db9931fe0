import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, test } from 'node:test'
import { Redis } from 'ioredis'
import { channelName, Lease, Locker, type LockerOptions, UnavailableError } from '../../src/index.ts'
import { EPSILON } from '../support/lockers.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { followsNewMaster, SentinelSet } from '../support/sentinel.ts'
import { until } from '../support/wait.ts'

const LEASE = 1000
const TIMEOUT = 20_000

/** One run of a work; times by the clock of this process, ms. */
interface Run {
  fence: number
  from: number
  to: number
}

/** Number of stages so far. */
let stages = 0

/** A sentinel set, lockers that connect to it in different ways, and a history of their works and grants. */
class Stage implements AsyncDisposable {
  readonly set: SentinelSet
  /** Prefix of its keys, since grant events of all stages reach every stage of this process. */
  readonly #name: string = `stage${++stages}`
  /** By options, by a borrowed client, and by a borrowed client with a socket timeout. */
  readonly lockers: readonly Locker[]
  /** Set to end the load. */
  over = false
  readonly #clients: readonly Redis[]
  readonly #fences = new Map<string, number[]>()
  readonly #runs = new Map<string, Run[]>()
  readonly #note = (event: unknown): void => {
    const { key, fence } = event as { key: string; fence: number }
    if (key.startsWith(`${this.#name}:`)) this.#fences.set(key, [...(this.#fences.get(key) ?? []), fence])
  }

  private constructor(set: SentinelSet) {
    this.set = set
    this.#clients = [new Redis(set.options), new Redis({ ...set.options, socketTimeout: 1500 })]
    for (const client of this.#clients) client.on('error', () => {})
    const options: LockerOptions = {
      lease: LEASE,
      timeout: TIMEOUT,
      // Calls wait for a failover instead of failing.
      unavailableAfter: 15_000,
      cache: false,
      ttl: 0,
    }
    this.lockers = [set.options, ...this.#clients].map((redis) => new Locker({ redis, ...options }))
    subscribe(channelName('grant'), this.#note)
  }

  static async start(): Promise<Stage> {
    return new Stage(await SentinelSet.start())
  }

  /** A key of this stage. */
  key(name: string): string {
    return `${this.#name}:${name}`
  }

  locker(index: number): Locker {
    const found = this.lockers[index]
    assert.ok(found)
    return found
  }

  /** A work that takes a moment, and is recorded in the history. */
  work(key: string): (context: { fence: number }) => Promise<string> {
    return async ({ fence }) => {
      const from = performance.now()
      await new Promise((resolve) => setTimeout(resolve, 5))
      this.#runs.set(key, [...(this.#runs.get(key) ?? []), { fence, from, to: performance.now() }])
      return `${key} ${fence}`
    }
  }

  /** Runs keys by all lockers again and again until `over` is set. L1: each call settles in time. */
  async load(): Promise<{ results: number; errors: unknown[] }> {
    let results = 0
    const errors: unknown[] = []
    const client = async (locker: Locker, key: string) => {
      while (!this.over) {
        const start = performance.now()
        const result = await locker
          .run(key, this.work(key))
          .catch((error: unknown) => void errors.push(error))
        assert.ok(performance.now() - start < TIMEOUT + EPSILON)
        if (result !== undefined) results += 1
      }
    }
    await Promise.all(
      this.lockers.flatMap((locker) =>
        ['a', 'b', 'c'].map((key) => client(locker, this.key(`loaded:${key}`))),
      ),
    )
    return { results, errors }
  }

  /** S1: the fences of every key grow, in the order of the grant events. */
  assertFencesGrew(): void {
    assert.ok(this.#fences.size > 0)
    for (const [key, fences] of this.#fences) {
      const fell = fences.findIndex((fence, index) => index > 0 && fence <= (fences[index - 1] ?? 0))
      assert.equal(fell, -1, `${key}: ${fences[fell]} after ${fences[fell - 1]}`)
    }
  }

  /** One processor at a time, except during an asynchronous failover, for which there is no guarantee. */
  assertNoOverlap(failover: { from: number; to: number }): void {
    for (const [key, runs] of this.#runs) {
      const ordered = runs.toSorted((a, b) => a.from - b.from)
      for (const [index, { from }] of ordered.entries()) {
        const before = ordered[index - 1]
        const excused = from > failover.from && from < failover.to
        assert.ok(!before || excused || before.to <= from, `${key} had two processors`)
      }
    }
  }

  /** A lease of the first locker with a waiter of every other. */
  async hold(name: string): Promise<{ lease: Lease; waiters: Promise<unknown>[] }> {
    const key = this.key(name)
    const lease = await this.locker(0).request(key)
    assert.ok(lease instanceof Lease)
    const others = this.lockers.slice(1)
    const waiters = others.map((locker) => locker.run(key, ({ fence }) => `by a waiter ${fence}`))
    await until(async () => (await this.locker(0).peek(key)).lock?.parked === others.length, {
      what: 'all to be parked',
    })
    return { lease, waiters }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.over = true
    unsubscribe(channelName('grant'), this.#note)
    await Promise.all(this.lockers.map((locker) => locker.close({ grace: 0 })))
    for (const client of this.#clients) client.disconnect()
    await this.set[Symbol.asyncDispose]()
  }
}

const records = async (server: RedisServer, name: string) => {
  const keys = await server.call('KEYS', `*${name}*`)
  return Array.isArray(keys) ? keys.length : 0
}

describe('sentinel', { concurrency: true }, () => {
  test('S1 L1 sentinel - a planned failover while flights run and waiters are parked', async () => {
    await using stage = await Stage.start()
    const { lease, waiters } = await stage.hold('held')
    const load = stage.load()
    const from = performance.now()
    const old = await stage.set.master()
    const next = await stage.set.failover()
    // Until then it accepts writes, which will be lost.
    await followsNewMaster(old)
    // Every locker uses the new master, so the failover has ended for all.
    await Promise.all(
      stage.lockers.map((locker, index) => locker.run(stage.key(`after:${index}`), () => true)),
    )
    const failover = { from, to: performance.now() + LEASE }
    const published = await lease.publish('by the holder').then(
      () => true,
      () => false,
    )
    const given = await Promise.all(waiters)
    if (published) assert.deepEqual(given, ['by the holder', 'by the holder'])
    else for (const each of given) assert.match(String(each), /^by a waiter/)
    stage.over = true
    const { results, errors } = await load
    assert.deepEqual(errors, [])
    assert.ok(results > 0)
    assert.ok((await records(next, 'after')) === 3)
    stage.assertFencesGrew()
    stage.assertNoOverlap(failover)
  })

  test('S1 L1 sentinel - the master is killed', async () => {
    await using stage = await Stage.start()
    const { lease, waiters } = await stage.hold('held')
    const load = stage.load()
    const from = performance.now()
    const dead = await stage.set.killMaster()
    await stage.set.masterAfter(dead)
    await Promise.all(
      stage.lockers.map((locker, index) => locker.run(stage.key(`after:${index}`), () => true)),
    )
    const failover = { from, to: performance.now() + LEASE }
    await lease.release().catch(() => {})
    for (const each of await Promise.all(waiters)) {
      const fence = Number(/^by a waiter (\d+)/.exec(String(each))?.[1])
      assert.ok(fence > lease.fence)
    }
    stage.over = true
    const { results, errors } = await load
    assert.deepEqual(errors, [])
    assert.ok(results > 0)
    stage.assertFencesGrew()
    stage.assertNoOverlap(failover)
  })

  test('S1 S2 L1 sentinel - the master freezes and comes back as an old master', async () => {
    await using stage = await Stage.start()
    const [byOptions, borrowing, impatient] = [stage.locker(0), stage.locker(1), stage.locker(2)]
    const { lease, waiters } = await stage.hold('held')
    const frozen = await stage.set.freezeMaster()
    const next = await stage.set.masterAfter(frozen)
    // The client with a socket timeout goes on while the old master is still frozen.
    const fence = await byOptions.run(stage.key('meanwhile'), (context) => context.fence)
    assert.ok(fence > lease.fence)
    await impatient.run(stage.key('meanwhile:too'), () => 1)
    // The others receive an error or a result in time.
    const start = performance.now()
    const patient = borrowing
      .run(stage.key('patient'), () => 1, { timeout: 1000 })
      .catch((error: unknown) => error)
    assert.ok((await patient) !== undefined)
    assert.ok(performance.now() - start < 1000 + EPSILON)
    frozen.thaw()
    await followsNewMaster(frozen)
    for (const [index, locker] of stage.lockers.entries()) {
      assert.equal(await locker.run(stage.key(`after:${index}`), () => index, { ttl: 60_000 }), index)
      assert.equal(await records(next, `after:${index}`), 1)
    }
    // S2: a superseded holder cannot publish, on whichever master.
    const given = await Promise.all(
      waiters.map((waiter) => waiter.catch((error: unknown) => assert.ok(error instanceof UnavailableError))),
    )
    assert.ok(given.length === 2)
    const accepted = await lease.publish('too late').then(
      () => true,
      () => false,
    )
    if (accepted) assert.ok(!given.some((each) => String(each).startsWith('by a waiter')))
    stage.assertFencesGrew()
  })
})
