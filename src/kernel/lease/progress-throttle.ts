import type { Clock, Timer } from '../event-loop.ts'

/** Progress is sent this often at most, ms. */
const INTERVAL = 50

/**
 * Sends the progress of a work: the first at once, later ones at most every 50 ms, and of several within that time only
 * the last. Best effort: `send` must not throw, and nobody waits for it.
 */
export class ProgressThrottle {
  readonly #clock: Clock
  readonly #send: (bytes: Buffer) => void
  /** The last progress that was not sent yet. */
  #pending: Buffer | undefined
  /** Runs while nothing may be sent. */
  #timer: Timer | undefined

  constructor(clock: Clock, send: (bytes: Buffer) => void) {
    this.#clock = clock
    this.#send = send
  }

  push(bytes: Buffer): void {
    this.#pending = bytes
    if (!this.#timer) this.#flush()
  }

  readonly #flush = (): void => {
    const bytes = this.#pending
    this.#timer = undefined
    if (!bytes) return
    this.#pending = undefined
    this.#send(bytes)
    this.#timer = this.#clock.after(INTERVAL, this.#flush, true)
  }

  /** Sends nothing any more of what was pushed before. */
  stop(): void {
    this.#pending = undefined
    this.#timer?.cancel()
    this.#timer = undefined
  }
}
