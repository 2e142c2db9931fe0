import type { Clock } from '../../kernel/clock.ts'

/** How far a reply is believed, ms: clocks drift, and a server's may be set. */
const BELIEVED = 60_000

/** What is known of the server's clock: a bound that it has not passed yet. */
export class ServerTime {
  readonly #clock: Clock
  #ahead = Number.POSITIVE_INFINITY
  #learnedAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** It was `now` there, at some moment after `sentAt` here: so it is not later there than this suggests. */
  learn(now: number, sentAt: number): void {
    if (!(now > 0)) return
    this.#ahead = now - sentAt
    this.#learnedAt = this.#clock.now()
  }

  /** ms that are surely left until a moment there; 0 if it may be past. */
  left(until: number): number {
    const now = this.#clock.now()
    if (now - this.#learnedAt > BELIEVED) return 0
    return Math.max(0, until - (now + this.#ahead))
  }
}
