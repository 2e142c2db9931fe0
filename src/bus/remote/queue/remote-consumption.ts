import type { MessageInfo, QueueMessage } from '../../queue/events.ts'
import type { ConsumeOptions } from '../../queue/options.ts'
import { RemoteThrottle } from '../throttle.ts'
import { finite, ms } from '../wire.ts'
import type { RemoteIterator } from './remote-iterator.ts'

/** One consumption of a queue behind a gateway, which begins there when the queue is attached, and again after an outage. */
export class RemoteConsumption<M> {
  /** How the gateway is told when it may go on. */
  readonly #pace: 'iterate' | 'throttle' | undefined
  readonly #throttle: RemoteThrottle
  readonly #options: Omit<ConsumeOptions, 'throttle' | 'max' | 'index'>
  /** Undefined: messages are events. */
  readonly iterator: RemoteIterator<QueueMessage<M>> | undefined
  /** How many more are to come. */
  #left: number
  /** A reader begins behind this message. */
  #index: number | undefined

  /** `onReady`: the throttle has said to fetch. */
  constructor(options: ConsumeOptions, onReady: () => void, iterator?: RemoteIterator<QueueMessage<M>>) {
    const { throttle, index, max = Number.POSITIVE_INFINITY, ...terms } = options
    this.#throttle = new RemoteThrottle(throttle, onReady)
    this.#pace = iterator ? 'iterate' : throttle && 'throttle'
    this.#options = terms
    this.#index = index
    this.#left = max < 0 ? Number.POSITIVE_INFINITY : max
    this.iterator = iterator
  }

  get isReliable(): boolean {
    return this.#options.reliable === true
  }

  /** Whether all messages have come. */
  get isOver(): boolean {
    return this.#left <= 0
  }

  /** Members of the message that begins it. */
  get members(): object {
    const { lease, ...terms } = this.#options
    const index = finite(this.#index)
    return { ...terms, index, lease: ms(lease), max: finite(this.#left), pace: this.#pace }
  }

  /** Whether the gateway may send the next message, or fetch. */
  get wantsMore(): boolean {
    return this.iterator ? this.iterator.isReading : this.#throttle.isReady
  }

  onMessage(value: M, id: number, info: MessageInfo): void {
    this.#left--
    // A reader goes on behind it after an outage.
    if (this.#options.remove === false) this.#index = id
    this.iterator?.receive({ value, id, ...info })
  }

  /** The gateway asks whether it may fetch. */
  onThrottle(): void {
    this.#throttle.ask()
  }

  /** The socket has ended. */
  onLost(): void {
    this.#throttle.forget()
  }

  /** It is over. `error`: the queue was lost. */
  end(error?: Error): void {
    this.onLost()
    this.iterator?.end(error)
  }
}
