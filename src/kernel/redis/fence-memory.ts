import type { ServerClock } from './server-clock.ts'

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
