import type { ServerClock } from './server-clock.ts'

/** The largest fence, and whatever else only grows in a record: numbers beyond it are not exact, here or in a script. */
export const MAX_EXACT: number = Number.MAX_SAFE_INTEGER

/** How far ahead of the server's clock, ms, a fence may be that is remembered. */
const AHEAD = 24 * 60 * 60_000

/** How far above the highest one, µs, it may be otherwise: after the clock was set back, fences go on from there. */
const STEP = 1_000_000

/**
 * The highest fence that this process was told of: the next is above it, even if the server has lost the record and its
 * clock was set back. A fence that neither the server's clock nor the highest one so far explains is not remembered: whoever
 * wrote it into one record would spoil all others. It counts for its own record alone.
 */
export class FenceMemory {
  readonly #clock: Pick<ServerClock, 'about'>
  #highest = 0

  constructor(clock: Pick<ServerClock, 'about'>) {
    this.#clock = clock
  }

  get highest(): number {
    return this.#highest
  }

  saw(fence: number): void {
    if (fence > this.#highest && this.explains(fence)) this.#highest = fence
  }

  /** Whether a fence may have been granted in the course of things. */
  explains(fence: number): boolean {
    return fence <= Math.max((this.#clock.about + AHEAD) * 1000, this.#highest + STEP)
  }
}
