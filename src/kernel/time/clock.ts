import { rootContext } from '../work/user-code.ts'
import { clearTimer, now, setTimer } from './timers.ts'

/** A pending timer, as `setTimeout` of the clock returned it. */
export interface Timer {
  /** Takes it back. Does nothing when it has fired. */
  cancel(): void
}

/**
 * Time as the library sees it: monotonic, so that a stepped wall clock decides nothing. Tests inject another to make
 * hours pass at once.
 */
export interface Clock {
  /** Milliseconds since an arbitrary moment; never goes back. */
  now(): number
  /**
   * Calls `run` once after `ms`, in the async context of no call: timers that are armed again and again would keep the
   * stores of the first call alive. `background: true`: does not keep the process alive.
   */
  after(ms: number, run: () => void, background?: boolean): Timer
}

/** Node's timers overflow above this and would fire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1

class NodeTimer implements Timer {
  readonly #handle: NodeJS.Timeout | undefined

  constructor(ms: number, run: () => void, background: boolean) {
    // What is further away than 24 days is as good as never to a process; firing early would be wrong.
    if (ms <= MAX_TIMEOUT_MS) this.#handle = rootContext.run(() => setTimer(run, Math.max(0, Math.ceil(ms))))
    // Where timers are numbers, as in jsdom, nothing keeps a process alive.
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
