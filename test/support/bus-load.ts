import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Queue } from '../../src/bus/index.ts'
import { SoloflightError, UnavailableError } from '../../src/errors.ts'
import { upTo } from './bus-scene.ts'
import { until } from './wait.ts'

/** Messages that are pushed at once. */
const AT_ONCE = 5

/** Pushes 1, 2, … to a queue, a few at once, until it is stopped. */
export class BusLoad implements AsyncDisposable {
  /** What was pushed for certain, and what perhaps. */
  readonly pushed: number[] = []
  readonly maybe: number[] = []
  /** Of the errors. */
  readonly codes = new Set<string>()
  #isOver = false
  readonly #loading: Promise<void>

  constructor(queue: Queue<unknown>) {
    this.#loading = this.#load(queue)
  }

  async #load(queue: Queue<unknown>): Promise<void> {
    for (let value = 1; !this.#isOver; value += AT_ONCE) {
      await Promise.all(upTo(AT_ONCE, value).map((each) => this.#push(queue, each)))
      await sleep(1)
    }
  }

  async #push(queue: Queue<unknown>, value: number): Promise<void> {
    try {
      await queue.push(value)
      this.pushed.push(value)
    } catch (error) {
      this.codes.add(error instanceof SoloflightError ? error.code : String(error))
      if (!(error instanceof UnavailableError) || error.sent) this.maybe.push(value)
    }
  }

  /** Resolves when so many more messages were pushed. */
  async more(count: number, timeout = 10_000): Promise<void> {
    const from = this.pushed.length
    await until(() => this.pushed.length >= from + count, { what: 'the pushes', timeout })
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#loading
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** No other value was pushed than these. */
  assertPushed(values: readonly unknown[]): void {
    const known = new Set<unknown>([...this.pushed, ...this.maybe])
    for (const value of values) assert.ok(known.has(value), `${value} was received, and not pushed`)
  }
}
