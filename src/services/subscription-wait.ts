import type { ServicesContext } from './options.ts'

/** Waits for the subscription: until it is established, nothing that others send arrives. */
export class SubscriptionWait {
  readonly #context: ServicesContext
  readonly #waiting = new Set<() => void>()

  constructor(context: ServicesContext) {
    this.#context = context
  }

  /** Resolves with whether messages arrive, at the latest when a call to the store would have failed. */
  async subscribed(): Promise<boolean> {
    const { store, clock, storeTimeout } = this.#context
    if (store.subscribed) return true
    await new Promise<void>((resolve) => {
      const stop = () => {
        timer.cancel()
        this.#waiting.delete(stop)
        resolve()
      }
      const timer = clock.after(storeTimeout, stop)
      this.#waiting.add(stop)
    })
    return store.subscribed
  }

  onUp(): void {
    for (const stop of [...this.#waiting]) stop()
  }
}
