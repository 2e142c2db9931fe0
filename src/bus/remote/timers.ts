// The timers of browsers and of Node: the clock of the kernel is Node's. Fake timers of a test that come later do not stop them.

const { setTimeout: set, clearTimeout: clear, queueMicrotask: microtask } = globalThis

/** A call that is due later. */
export interface Timer {
  cancel(): void
}

/** Calls `run` after so many ms, unless it is cancelled. */
export function after(ms: number, run: () => void): Timer {
  const timer = set(run, ms)
  return { cancel: () => clear(timer) }
}

/** Lets the environment report an error that a listener has thrown, as it does for listeners of its own. */
export function reportUncaught(error: unknown): void {
  const { reportError } = globalThis as { reportError?: (error: unknown) => void }
  if (reportError) reportError(error)
  else microtask(() => void Promise.reject(error))
}

/** One thing that may be due later. */
export class Later {
  #timer: Timer | undefined

  /** Calls `run` after so many ms, and not what was to be called before. */
  after(ms: number, run: () => void): void {
    this.cancel()
    this.#timer = after(ms, run)
  }

  cancel(): void {
    this.#timer?.cancel()
  }
}
