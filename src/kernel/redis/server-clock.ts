import type { Clock } from '../event-loop.ts'

// What replies tell of the server's time, and of the fences that depend on it.

/** A reading of the server's clock is used this long. It limits the effect of a server clock that is set. */
const TRUSTED_FOR_MS = 60_000

/** The server's clock may run faster than ours by this factor. */
const DRIFT = 1 / 1000

/**
 * An upper bound of the server's time, from the times in its replies. Freshness and leases are judged by the server's clock,
 * but plain reads and messages do not carry it. With an upper bound no value is served after its ttl, and no lease is
 * believed after it has expired.
 */
export class ServerClock {
  readonly #clock: Clock
  #offset = 0
  #updatedAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Records the server's time `now` (ms since the epoch) from the reply to a request sent at `sentAt` of our clock. */
  update(latest: number, sentAt: number): void {
    if (!(latest > 0)) return
    // `now` is rounded down to a millisecond.
    this.#offset = latest + 1 - sentAt
    this.#updatedAt = sentAt
  }

  /** Estimate of the server's time, ms since the epoch. Meaningless before the first {@link update}. */
  get estimate(): number {
    return this.#clock.now() + this.#offset
  }

  /** Upper bound of the server's time, ms since the epoch; undefined without a recent reading. */
  now(): number | undefined {
    const now = this.#clock.now()
    const age = now - this.#updatedAt
    return age < TRUSTED_FOR_MS ? this.estimate + age * DRIFT : undefined
  }

  /** Lower bound of the time, ms, until the server's clock reads `until`; 0 if that may have passed. */
  remaining(until: number): number {
    const now = this.now()
    return now === undefined ? 0 : Math.max(0, until - now)
  }
}

/** The largest fence or version. Larger integers are not exact, in JavaScript or in Lua. */
export const MAX_EXACT_INTEGER: number = Number.MAX_SAFE_INTEGER

/** A plausible fence is ahead of the server's clock by at most this … */
const MAX_CLOCK_LEAD_MS = 24 * 60 * 60_000

/** … or above the highest one so far by at most this: after the clock was set back, fences continue from there. */
const MAX_FENCE_STEP_US = 1_000_000

/**
 * The highest fence that this process has seen. Claims carry it, so that the next fence is above it even if the server has
 * lost the record and its clock was set back. An implausible fence is not remembered: if somebody forged it in one record,
 * it must not affect the others.
 */
export class FenceWatermark {
  readonly #clock: Pick<ServerClock, 'estimate'>
  #highest = 0

  constructor(clock: Pick<ServerClock, 'estimate'>) {
    this.#clock = clock
  }

  get highest(): number {
    return this.#highest
  }

  observe(fence: number): void {
    if (fence > this.#highest && this.isPlausible(fence)) this.#highest = fence
  }

  /** Whether a fence can be the result of a regular grant. */
  isPlausible(fence: number): boolean {
    return (
      fence <= Math.max((this.#clock.estimate + MAX_CLOCK_LEAD_MS) * 1000, this.#highest + MAX_FENCE_STEP_US)
    )
  }
}
