import { atEndOfTurn, type Clock } from '../kernel/time.ts'
import type { QueueStore } from './store/store.ts'

/** The register hears of the use of a queue object this often at most, ms. */
const INTERVAL = 10 * 60_000

/** After a failure it is tried again this much later, ms, when the queue is used. */
const RETRY_AFTER = 10_000

/**
 * Keeps a queue in the register of queues while this queue object uses it. Best effort: `use` and `keep` never throw and
 * delay nothing; their command is sent after all others of the turn.
 */
export class Registration {
  readonly #store: Pick<QueueStore, 'joinRegister' | 'leaveRegister'>
  readonly #clock: Clock
  readonly #within: number
  /** By the clock, ms. Uses before it are not told. */
  #nextAt = Number.NEGATIVE_INFINITY
  /** Whether the queue was taken out and has not been used since. */
  #hasLeft = false

  /** `within`: how long the store may take to answer, ms. */
  constructor(store: Pick<QueueStore, 'joinRegister' | 'leaveRegister'>, clock: Clock, within: number) {
    this.#store = store
    this.#clock = clock
    this.#within = within
  }

  /** Called when the queue object submits or takes a job. */
  use(): void {
    if (this.#hasLeft) this.#nextAt = Number.NEGATIVE_INFINITY
    this.#hasLeft = false
    this.keep()
  }

  /** Called while the queue has a worker: unlike a use, it does not bring the queue back at once after `leave`. */
  keep(): void {
    const now = this.#clock.now()
    if (now < this.#nextAt) return
    this.#nextAt = now + INTERVAL
    atEndOfTurn(() => void this.#join())
  }

  async #join(): Promise<void> {
    try {
      await this.#store.joinRegister(this.#within)
    } catch {
      this.#nextAt = this.#clock.now() + RETRY_AFTER
    }
  }

  /** Takes the queue out of the register, until it is used again. Rejects as the store does. */
  async leave(): Promise<void> {
    await this.#store.leaveRegister(this.#within)
    this.#nextAt = this.#clock.now() + INTERVAL
    this.#hasLeft = true
  }
}
