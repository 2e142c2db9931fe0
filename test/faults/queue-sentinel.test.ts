import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Redis } from 'ioredis'
import { type QueueOptions, RedisQueue, SoloflightError } from '../../src/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { EPSILON } from '../support/lockers.ts'
import { over, Runs, subscribed } from '../support/queue-wire.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { followsNewMaster, SentinelSet } from '../support/sentinel.ts'
import { until } from '../support/wait.ts'

const NAME = 'watched'
const LEASE = 1000
const TIMEOUT = 20_000

/** A sentinel set, and two processes with a queue: one connects by options, the other by a borrowed client. */
class Stage implements AsyncDisposable {
  readonly set: SentinelSet
  readonly queues: readonly [RedisQueue, RedisQueue]
  readonly runs: Runs = new Runs()
  /** Set to end the load. */
  over = false
  readonly #client: Redis

  private constructor(set: SentinelSet, options: QueueOptions) {
    this.set = set
    this.#client = new Redis({ ...set.options, socketTimeout: 1500 })
    this.#client.on('error', () => {})
    const all = { lease: LEASE, timeout: TIMEOUT, ...options }
    this.queues = [
      new RedisQueue(NAME, { redis: set.options, ...all }),
      new RedisQueue(NAME, { redis: this.#client, ...all }),
    ]
  }

  static async start(options: QueueOptions = {}): Promise<Stage> {
    const stage = new Stage(await SentinelSet.start(), options)
    for (const queue of stage.queues) queue.process('work', stage.runs.handler(2), { concurrency: 2 })
    await subscribed(...stage.queues)
    return stage
  }

  /** Jobs without a worker, which are replicated. */
  async replicated(count: number): Promise<string[]> {
    const payloads = Array.from({ length: count }, (_, index) => `replicated ${index}`)
    await this.queues[0].enqueueMany(payloads.map((payload) => ({ command: 'later', payload })))
    const [line = ''] = new QueueKeys('soloflight', NAME).command('later')
    // WAIT covers only the writes of its own connection; a new replica may lag by a second.
    const isThere = async (server: RedisServer) => Number(await server.call('LLEN', line)) === count
    await until(async () => (await Promise.all(this.set.servers.map(isThere))).every(Boolean), {
      what: 'the replication',
    })
    return payloads
  }

  /** Submits jobs until `over` is set. L1: every submission settles in time. */
  async load(): Promise<{ results: number; errors: unknown[] }> {
    let results = 0
    let next = 0
    const errors: unknown[] = []
    const submit = async (queue: RedisQueue) => {
      while (!this.over) {
        const payload = `load ${next++}`
        const start = performance.now()
        const settled = queue.submit('work', payload, { dedupe: next % 2 ? false : undefined })
        const result = await settled.catch((error: unknown) => void errors.push(error))
        const ms = performance.now() - start
        assert.ok(ms < TIMEOUT + EPSILON, `it took ${ms} ms`)
        if (result !== undefined) results += 1
      }
    }
    await Promise.all(this.queues.flatMap((queue) => [queue, queue, queue]).map(submit))
    return { results, errors }
  }

  /** A new worker runs all replicated jobs. */
  async runsAll(payloads: readonly string[]): Promise<void> {
    const runs = new Runs()
    this.queues[1].process('later', runs.handler(), { concurrency: 4 })
    const done = () => payloads.every((payload) => runs.of(payload) >= 1)
    await until(done, { what: 'all replicated jobs to run', timeout: 10_000 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.over = true
    await Promise.all(this.queues.map((queue) => queue.close({ grace: 0 })))
    this.#client.disconnect()
    await this.set[Symbol.asyncDispose]()
  }
}

/** RemovedError: the job was not replicated to the new master. */
function assertTyped(errors: readonly unknown[]): void {
  for (const error of errors) {
    const code = error instanceof SoloflightError ? error.code : String(error)
    assert.ok(['E_REMOVED', 'E_UNAVAILABLE'].includes(code), `Expected a typed error, got ${error}`)
  }
}

describe('a queue on a sentinel set', { concurrency: true }, () => {
  test('Q1 L1 sentinel - a planned failover under load: every submitter settles, replicated jobs run', async () => {
    await using stage = await Stage.start({ unavailableAfter: 15_000 })
    const payloads = await stage.replicated(50)
    const load = stage.load()
    await until(() => stage.runs.all.length > 50, { what: 'the load' })
    const old = await stage.set.master()
    await stage.set.failover()
    // Until then it accepts writes, which will be lost.
    await followsNewMaster(old)
    for (const queue of stage.queues) assert.equal(await queue.submit('work', 'after'), 'after')
    const before = stage.runs.all.length
    await until(() => stage.runs.all.length > before + 50, { what: 'the load to go on', timeout: 15_000 })
    stage.over = true
    const { results, errors } = await load
    assertTyped(errors)
    assert.ok(results > 100, `only ${results} results`)
    await stage.runsAll(payloads)
    await over(stage.queues[0])
  })

  test('Q1 L1 sentinel - the master is killed under load, with a long unavailableAfter', async () => {
    await using stage = await Stage.start({ unavailableAfter: 15_000 })
    const payloads = await stage.replicated(50)
    const load = stage.load()
    await until(() => stage.runs.all.length > 50, { what: 'the load' })
    await stage.set.masterAfter(await stage.set.killMaster())
    for (const queue of stage.queues) assert.equal(await queue.submit('work', 'after'), 'after')
    stage.over = true
    const { results, errors } = await load
    assertTyped(errors)
    assert.ok(results > 50, `only ${results} results`)
    await stage.runsAll(payloads)
    await over(stage.queues[1])
  })

  test('L1 sentinel - the master freezes, with an unavailableAfter of 1 s: typed errors, and recovery', async () => {
    await using stage = await Stage.start({ unavailableAfter: 1000 })
    const payloads = await stage.replicated(50)
    const frozen = await stage.set.freezeMaster()
    const start = performance.now()
    const settled = stage.queues.map((queue) =>
      queue.submit('work', 'frozen').catch((error: unknown) => error),
    )
    for (const error of await Promise.all(settled)) {
      assert.equal(error instanceof SoloflightError && error.code, 'E_UNAVAILABLE')
    }
    assert.ok(performance.now() - start < 1000 + EPSILON, `it took ${performance.now() - start} ms`)
    await stage.set.masterAfter(frozen)
    for (const queue of stage.queues) {
      const after = () => queue.submit('work', 'after', { timeout: 5000 })
      assert.equal(await until(after, { what: 'the new master', timeout: 15_000 }), 'after')
    }
    await stage.runsAll(payloads)
    frozen.thaw()
    await followsNewMaster(frozen)
    assert.equal(await stage.queues[0].submit('work', 'thawed'), 'thawed')
    await over(stage.queues[1])
  })
})
