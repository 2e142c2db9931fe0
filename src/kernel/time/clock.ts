import { rootContext } from '../work/user-code.ts'
import { clearTimer, now, setTimer } from './timers.ts'

/** A pending timer, as `after` of the clock returned it. */
export interface Timer {
  /** Cancels it. Does nothing when it has fired. */
  cancel(): void
}

/**
 * A monotonic clock and its timers: steps of the wall clock have no effect. Tests inject a simulated one.
 */
export interface Clock {
  /** Milliseconds since an arbitrary moment; never goes back. */
  now(): number
  /**
   * Calls `run` once after `ms`, in the root async context: a timer that is set again and again would otherwise keep the
   * AsyncLocalStorage stores of the first call alive. `background: true`: does not keep the process alive.
   */
  after(ms: number, run: () => void, background?: boolean): Timer
}

/** Node's timers overflow above this, and fire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1

class NodeTimer implements Timer {
  readonly #handle: NodeJS.Timeout | undefined

  constructor(ms: number, run: () => void, background: boolean) {
    // A longer delay, 24 days, never fires: firing early would be wrong.
    if (ms <= MAX_TIMEOUT_MS) this.#handle = rootContext.run(() => setTimer(run, Math.max(0, Math.ceil(ms))))
    // In jsdom timers are numbers, and have no `unref`.
    if (background) this.#handle?.unref?.()
  }

  cancel(): void {
    clearTimer(this.#handle)
  }
}

/** The process's own monotonic clock and timers. */
export const systemClock: Clock = {
  now,
  after: (ms, run, background = false) => new NodeTimer(ms, run, background),
}
