import { callHook } from '../../kernel/hooks.ts'
import { AsyncContext } from '../../kernel/time.ts'
import type { Incoming } from '../store/store.ts'
import type { Throttle } from './options.ts'
import type { QueueIterator } from './queue-iterator.ts'

/** Receives the messages of a consumption. */
export interface Receiver {
  /** Whether messages may be fetched. If not, it calls `resume` of the consumption later. */
  wantsFetch(): boolean
  /** Whether a message may be handed over. If not, it calls `resume` later. */
  wantsMessage(): boolean
  /** A fetch begins. */
  onFetch?(): void
  receive(message: Incoming, fence: number): void
  /** Messages arrive from now on. */
  onStarted?(): void
  /** An exclusive consumer has become the one that receives, or is it no more: 0. */
  onFence?(fence: number): void
}

/** What a receiver of events needs of its queue. */
interface EventReceiverDeps {
  receive(message: Incoming, fence: number): void
  onStarted?(): void
  onFence?(fence: number): void
  resume(): void
}

/** Hands messages over as events, as they come; with a throttle, fetches when that says so. */
export class EventReceiver implements Receiver {
  readonly #deps: EventReceiverDeps
  readonly #throttle: Throttle | undefined
  readonly #asyncContext: AsyncContext | undefined
  /** Of the throttle: not asked, asked, ready. */
  #state: 'idle' | 'asked' | 'ready' = 'idle'

  constructor(deps: EventReceiverDeps, throttle: Throttle | undefined) {
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
    this.#deps.onStarted?.()
  }

  onFence(fence: number): void {
    this.#deps.onFence?.(fence)
  }
}

/** Hands messages over to an iteration: one is fetched when it is asked for. */
export class IterationReceiver<Item> implements Receiver {
  readonly #iterator: QueueIterator<Item>
  readonly #decode: (message: Incoming, fence: number) => Item | undefined

  /** `decode`: returns undefined if a message cannot be decoded, and is passed over. */
  constructor(iterator: QueueIterator<Item>, decode: (message: Incoming, fence: number) => Item | undefined) {
    this.#iterator = iterator
    this.#decode = decode
  }

  wantsFetch(): boolean {
    return this.#iterator.isReading
  }

  wantsMessage(): boolean {
    return this.#iterator.isReading
  }

  receive(message: Incoming, fence: number): void {
    const item = this.#decode(message, fence)
    if (item !== undefined) this.#iterator.give(item)
  }
}
