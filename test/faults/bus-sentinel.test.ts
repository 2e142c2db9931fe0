import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Bus } from '../../src/bus/index.ts'
import { BusLoad } from '../support/bus-load.ts'
import { MortalityWatch } from '../support/bus-scene.ts'
import { followsNewMaster, SentinelSet } from '../support/sentinel.ts'
import { until } from '../support/wait.ts'

/** A sentinel set, a bus that pushes under load, and one that consumes in every mode. */
class Stage implements AsyncDisposable {
  readonly set: SentinelSet
  readonly buses: readonly Bus[]
  readonly loads: { load: BusLoad; received: unknown[] }[] = []
  readonly #watch: MortalityWatch

  private constructor(set: SentinelSet) {
    this.set = set
    this.buses = [0, 1].map(() => new Bus({ redis: set.options, unavailableAfter: 3000 }))
    this.#watch = new MortalityWatch(...set.servers)
  }

  static async start(): Promise<Stage> {
    const stage = new Stage(await SentinelSet.start())
    const [a, b] = stage.buses as [Bus, Bus]
    await Promise.all([a.connect(), b.connect()])
    for (const options of [
      {},
      { reliable: true, prefetch: 5 },
      { exclusive: true, reliable: true },
      { remove: false },
    ]) {
      const name = JSON.stringify(options)
      const [producer, consumer] = [a.queue(name), b.queue(name)]
      const received: unknown[] = []
      consumer.on('message', (value, id) => {
        received.push(value)
        consumer.ack(id).catch(() => {})
      })
      // A reader learns that the queue was lost when it renews its attachment.
      await Promise.all([producer.attach({ ttl: 6000 }), consumer.attach({ ttl: 6000 })])
      await consumer.consume({ lease: 3000, ...options })
      stage.loads.push({ load: new BusLoad(producer), received })
    }
    await stage.more(50)
    return stage
  }

  async more(count: number): Promise<void> {
    await Promise.all(this.loads.map(({ load }) => load.more(count, 30_000)))
  }

  /** Each push has settled, and its error is typed. All consumers go on, and get what was pushed last. */
  async end(): Promise<void> {
    const counts = this.loads.map(({ received }) => received.length)
    const goesOn = () => this.loads.every(({ received }, n) => received.length > (counts[n] ?? 0))
    await until(goesOn, { what: 'all to go on', timeout: 40_000 })
    for (const { load, received } of this.loads) {
      await load.stop()
      for (const code of load.codes) assert.equal(code, 'E_UNAVAILABLE')
      load.assertPushed(received)
      const last = load.pushed.at(-1)
      await until(() => received.includes(last), { what: 'the messages', timeout: 20_000 })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.loads.map(({ load }) => load.stop()))
    await Promise.all(this.buses.map((bus) => bus.disconnect({ grace: 0 })))
    try {
      await this.#watch[Symbol.asyncDispose]()
    } finally {
      await this.set[Symbol.asyncDispose]()
    }
  }
}

describe('a bus on a sentinel set', { concurrency: true, timeout: 120_000 }, () => {
  test('B4 sentinel - a planned failover under load: pushes and consumption go on by themselves', async () => {
    await using stage = await Stage.start()
    const old = await stage.set.master()
    await stage.set.failover()
    await followsNewMaster(old)
    await stage.more(100)
    await stage.end()
  })

  test('B4 sentinel - the master is killed under load: pushes and consumption go on by themselves', async () => {
    await using stage = await Stage.start()
    await stage.set.masterAfter(await stage.set.killMaster())
    await stage.more(100)
    await stage.end()
  })
})
