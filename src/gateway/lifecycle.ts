import { TransientSet } from '../kernel/collections.ts'
import type { Clock } from '../kernel/time.ts'

/**
 * The life of a gateway.
 *
 *   state     event                                             next state
 *   open      close                                             draining: it is not ready, and goes on serving
 *   draining  the drain is over, and no request is left or the  ending: `ending` aborts, so that requests stop waiting
 *             grace, which follows it, is over
 *   ending    no request is left                                closed
 */
export class Lifecycle {
  readonly #clock: Clock
  readonly #ending = new AbortController()
  #state: 'open' | 'draining' | 'ending' | 'closed' = 'open'
  /** Of the requests that wait. Not listeners of a signal: it would look through all of them when one is removed. */
  readonly #waits = new TransientSet<AbortController>()
  /** Requests that are not answered, and jobs whose hand-over is not over. */
  #running = 0
  #onIdle: (() => void) | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get isOpen(): boolean {
    return this.#state === 'open'
  }

  get isClosed(): boolean {
    return this.#state === 'closed'
  }

  /** Aborts when requests must stop waiting: they are answered then as at the end of their wait. */
  get ending(): AbortSignal {
    return this.#ending.signal
  }

  /** Number of requests that wait for a job, a result or a key. */
  get waiting(): number {
    return this.#waits.size
  }

  /** Runs something that waits. `controller`, of the signal that it is given, aborts when requests must stop waiting. */
  async wait<T>(controller: AbortController, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#ending.signal.aborted) controller.abort()
    this.#waits.add(controller)
    try {
      return await run(controller.signal)
    } finally {
      this.#waits.delete(controller)
    }
  }

  /** Runs something that `close` waits for. */
  async track<T>(run: () => Promise<T>): Promise<T> {
    this.#running++
    try {
      return await run()
    } finally {
      this.#running--
      if (this.#running === 0) this.#onIdle?.()
    }
  }

  /** The gateway is not ready from now on. Resolves after `drain` ms, so that balancers notice. */
  async drain(drain: number): Promise<void> {
    this.#state = 'draining'
    if (drain > 0) await new Promise<void>((resolve) => this.#clock.after(drain, resolve))
  }

  /** Resolves when nothing runs any more. What runs has `grace` ms before it is told to end, and `limit` ms after that. */
  async end(grace: number, limit: number): Promise<void> {
    await this.#idle(grace)
    this.#state = 'ending'
    this.#ending.abort()
    for (const controller of this.#waits) controller.abort()
    await this.#idle(limit)
    this.#state = 'closed'
  }

  #idle(within: number): Promise<void> {
    if (this.#running === 0) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = this.#clock.after(within, done)
      function done() {
        timer.cancel()
        resolve()
      }
      this.#onIdle = done
    })
  }
}
