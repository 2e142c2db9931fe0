import type { Clock } from '../time/clock.ts'

/** A reading of the server's clock is used for so long, ms: a server whose clock is set misleads no longer than that. */
const TRUSTED_FOR_MS = 60_000

/** How much faster than ours a server's clock may run. */
const DRIFT = 1 / 1000

/**
 * What time it is at the server at the latest, learned from its replies. Freshness and leases are judged by the server's
 * clock, which plain reads and messages do not tell: with this bound nothing is served for longer than its ttl, and no
 * lease is believed for longer than it lasts.
 */
export class ServerClock {
  readonly #clock: Clock
  #offset = 0
  #updatedAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The server said that it was `now` (ms since the epoch), in the reply to what was sent at `sentAt` of our clock. */
  update(latest: number, sentAt: number): void {
    if (!(latest > 0)) return
    // It told whole milliseconds: it may be up to one more.
    this.#offset = latest + 1 - sentAt
    this.#updatedAt = sentAt
  }

  /** About what time it is there, ms since the epoch, however long ago it was told; of no use before that. */
  get estimate(): number {
    return this.#clock.now() + this.#offset
  }

  /** What time it is there at the latest, ms since the epoch; undefined when the server has not told the time lately. */
  now(): number | undefined {
    const now = this.#clock.now()
    const age = now - this.#updatedAt
    return age < TRUSTED_FOR_MS ? this.estimate + age * DRIFT : undefined
  }

  /** ms that are surely left until a moment of the server; 0 if it may be past. */
  remaining(until: number): number {
    const now = this.now()
    return now === undefined ? 0 : Math.max(0, until - now)
  }
}
