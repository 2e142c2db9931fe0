import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SoloflightError } from '../../src/errors.ts'
import { type Remote, Services } from '../../src/services/index.ts'
import { followsNewMaster, SentinelSet } from '../support/sentinel.ts'
import { SERVICE, type WorkApi } from '../support/services-protocol.ts'
import { idle } from '../support/services-scene.ts'
import { until } from '../support/wait.ts'

/** A sentinel set, two Services objects that serve, and one that calls, under load. */
class Stage implements AsyncDisposable {
  readonly set: SentinelSet
  readonly all: readonly Services[]
  readonly work: Remote<WorkApi>
  readonly runs = new Map<string, number>()
  readonly outcomes: Promise<unknown>[] = []
  #going = true
  #loading: Promise<void> | undefined

  private constructor(set: SentinelSet) {
    this.set = set
    const options = { redis: set.options, lease: 2000, unavailableAfter: 15_000 }
    this.all = [new Services(options), new Services(options), new Services(options)]
    const [caller] = this.all
    assert.ok(caller)
    this.work = caller.require<WorkApi>(SERVICE, { timeout: 25_000, wait: 20_000 })
  }

  static async start(): Promise<Stage> {
    const stage = new Stage(await SentinelSet.start())
    for (const services of stage.all.slice(1)) {
      const service = await services.register<WorkApi>(SERVICE)
      service.on('run', async ({ name }) => {
        stage.runs.set(name, (stage.runs.get(name) ?? 0) + 1)
        await sleep(2)
        return 1
      })
    }
    await stage.work.ready()
    await until(() => stage.all.every((each) => each.stats().subscribed), { what: 'the subscriptions' })
    stage.#loading = stage.#load()
    await stage.more(100)
    return stage
  }

  async #load(): Promise<void> {
    for (let n = 0; this.#going; n++) {
      this.outcomes.push(this.work.emit('run', { name: `j${n}` }).catch((error: unknown) => error))
      await sleep(5)
    }
  }

  async more(count: number): Promise<void> {
    const ran = this.runs.size
    await until(() => this.runs.size > ran + count, { what: 'the load', timeout: 25_000 })
  }

  /** V1: each call settles, and its error is typed and honest. */
  async end(): Promise<void> {
    this.#going = false
    await this.#loading
    const outcomes = await Promise.all(this.outcomes)
    for (const [index, outcome] of outcomes.entries()) {
      const ran = this.runs.get(`j${index}`) ?? 0
      if (outcome === 1) assert.ok(ran >= 1, `j${index} ran ${ran} times`)
      else if (outcome instanceof SoloflightError) {
        // All calls of an outage come at once when it ends: processes may refuse one ten times.
        const codes = ['E_UNAVAILABLE', 'E_NO_SERVICE', 'E_PROCESS_LOST', 'E_BUSY']
        assert.ok(codes.includes(outcome.code), String(outcome))
        if (outcome.ran === 'no') assert.equal(ran, 0, `j${index}: ${outcome.code} no, ran ${ran} times`)
      } else assert.fail(String(outcome))
    }
    await until(() => this.all.every((each) => each.stats().subscribed), { what: 'the subscriptions' })
    await idle(await this.set.master(), 2)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#going = false
    await Promise.all(this.all.map((services) => services.close({ grace: 0 })))
    await this.set[Symbol.asyncDispose]()
  }
}

describe('services on a sentinel set', { concurrency: true, timeout: 90_000 }, () => {
  test('V1 V4 sentinel - a planned failover under load: each call settles, and the services go on', async () => {
    await using stage = await Stage.start()
    const old = await stage.set.master()
    await stage.set.failover()
    await followsNewMaster(old)
    await stage.more(200)
    await stage.end()
  })

  test('V1 V4 sentinel - the master is killed under load: each call settles, and the services go on', async () => {
    await using stage = await Stage.start()
    await stage.set.masterAfter(await stage.set.killMaster())
    await stage.more(200)
    await stage.end()
  })
})
