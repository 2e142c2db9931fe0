import { callHook } from '../../kernel/hooks.ts'
import { AsyncContext } from '../../kernel/time.ts'
import type { Incoming } from '../store/store.ts'
import type { Receiver } from './consumption.ts'
import type { Throttle } from './options.ts'

/** What a receiver needs of its queue. */
interface ReceiverDeps {
  receive(message: Incoming, fence: number): void
  onStarted(): void
  onFence?(fence: number): void
  resume(): void
}

/** Hands messages over as events, as they come; with a throttle, fetches when that says so. */
export class EventReceiver implements Receiver {
  readonly #deps: ReceiverDeps
  readonly #throttle: Throttle | undefined
  readonly #asyncContext: AsyncContext | undefined
  /** Of the throttle: not asked, asked, ready. */
  #state: 'idle' | 'asked' | 'ready' = 'idle'

  constructor(deps: ReceiverDeps, throttle: Throttle | undefined) {
    this.#deps = deps
    this.#throttle = throttle
    this.#asyncContext = throttle && new AsyncContext()
  }

  wantsFetch(): boolean {
    if (this.#throttle && this.#state === 'idle') {
      this.#state = 'asked'
      callHook(this.#asyncContext, 'throttle', this.#throttle, () => this.#onReady())
    }
    return !this.#throttle || this.#state === 'ready'
  }

  #onReady(): void {
    if (this.#state !== 'asked') return
    this.#state = 'ready'
    this.#deps.resume()
  }

  wantsMessage(): boolean {
    return true
  }

  onFetch(): void {
    this.#state = 'idle'
  }

  receive(message: Incoming, fence: number): void {
    this.#deps.receive(message, fence)
  }

  onStarted(): void {
    this.#deps.onStarted()
  }

  onFence(fence: number): void {
    this.#deps.onFence?.(fence)
  }
}
