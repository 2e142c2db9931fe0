import { TimeoutError } from '../errors.ts'
import { listenTo } from '../kernel/collections.ts'
import type { ServicesContext } from './options.ts'

/** How often `ready` looks for a process, ms: the announcement may be lost. */
const POLL_MS = 1_000

/** Processes that register for services: tells who waits for a first one. */
export class Arrivals {
  readonly #context: ServicesContext
  readonly #assertOpen: () => void
  /** What to call, by service. */
  readonly #listeners = new Map<string, Set<() => void>>()

  /** `assertOpen`: throws ClosedError when nobody is to wait any more. */
  constructor(context: ServicesContext, assertOpen: () => void) {
    this.#context = context
    this.#assertOpen = assertOpen
  }

  /** Calls `arrived` when a process has registered for a service, or may have. The returned function ends that. */
  listen(service: string, arrived: () => void): () => void {
    return listenTo(this.#listeners, service, arrived)
  }

  /** A process has registered. */
  onArrival(service: string): void {
    for (const arrived of [...(this.#listeners.get(service) ?? [])]) arrived()
  }

  /** Announcements may have been lost. */
  onUp(): void {
    for (const service of [...this.#listeners.keys()]) this.onArrival(service)
  }

  /**
   * Resolves when a process serves a service.
   * @throws TimeoutError, or the last error of the store, after the timeout; ClosedError.
   */
  async ready(service: string, timeout: number): Promise<void> {
    this.#assertOpen()
    const { store, storeTimeout, clock } = this.#context
    const end = clock.now() + timeout
    let failure: Error | undefined
    for (;;) {
      let wake = () => {}
      const arrived = new Promise<void>((resolve) => {
        wake = resolve
      })
      const stop = this.listen(service, wake)
      const timer = clock.after(Math.min(POLL_MS, end - clock.now()), wake)
      try {
        failure = undefined
        const count = await store.count(service, storeTimeout).catch((error: Error) => {
          failure = error
          return 0
        })
        if (count > 0) return
        await arrived
      } finally {
        stop()
        timer.cancel()
      }
      this.#assertOpen()
      if (clock.now() >= end)
        throw failure ?? new TimeoutError(`No process serves ${service}`, { key: service })
    }
  }
}
