import { setTimeout as sleep } from 'node:timers/promises'
import { type Payload, sumOf } from './payload.ts'
import type { BenchQueue } from './queue.ts'

/** What came of jobs whose results were awaited. */
export interface Outcome {
  right: number
  wrong: number
  /** Answered by an error. */
  rejected: number
  /** Never answered. */
  unsettled: number
}

/** Jobs that were submitted, and whose results are awaited. */
export class Awaited {
  readonly #queue: BenchQueue
  #outcome: Outcome = { right: 0, wrong: 0, rejected: 0, unsettled: 0 }
  readonly #answers: Promise<void>[] = []

  constructor(queue: BenchQueue) {
    this.#queue = queue
  }

  submit(payload: Payload): void {
    this.#outcome.unsettled++
    this.#answers.push(this.#submit(payload))
  }

  /** Some have an answer. */
  any(): Promise<void> {
    return Promise.race(this.#answers)
  }

  /** All have an answer, or so many milliseconds are over. */
  async settled(within: number): Promise<Outcome> {
    const timer = new AbortController()
    await Promise.race([
      Promise.all(this.#answers),
      sleep(within, undefined, { signal: timer.signal }).catch(() => {}),
    ])
    timer.abort()
    return { ...this.#outcome }
  }

  async #submit(payload: Payload): Promise<void> {
    try {
      const result = await this.#queue.submit(payload)
      if (result === sumOf(payload)) this.#outcome.right++
      else this.#outcome.wrong++
    } catch {
      this.#outcome.rejected++
    }
    this.#outcome.unsettled--
  }
}
