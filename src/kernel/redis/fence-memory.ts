import type { ServerClock } from './server-clock.ts'

/** The largest fence, and whatever else only grows in a record: numbers beyond it are not exact, here or in a script. */
export const MAX_EXACT_INTEGER: number = Number.MAX_SAFE_INTEGER

/** How far ahead of the server's clock, ms, a fence may be that is remembered. */
const MAX_CLOCK_LEAD_MS = 24 * 60 * 60_000

/** How far above the highest one, µs, it may be otherwise: after the clock was set back, fences go on from there. */
const MAX_FENCE_STEP_US = 1_000_000

/**
 * The highest fence that this process was told of: the next is above it, even if the server has lost the record and its
 * clock was set back. A fence that neither the server's clock nor the highest one so far explains is not remembered: whoever
 * wrote it into one record would spoil all others. It counts for its own record alone.
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

  /** Whether a fence may have been granted in the course of things. */
  isPlausible(fence: number): boolean {
    return (
      fence <= Math.max((this.#clock.estimate + MAX_CLOCK_LEAD_MS) * 1000, this.#highest + MAX_FENCE_STEP_US)
    )
  }
}
