import { AlreadyAttachedError } from '../../errors.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { encodeLimited } from '../../kernel/codec/limit.ts'
import { ContextEmitter } from '../../kernel/hooks.ts'
import { expectedError } from '../../kernel/options.ts'
import { emit } from '../../kernel/telemetry.ts'
import { rootContext } from '../../kernel/time.ts'
import type { BusContext } from '../context.ts'
import { checkName } from '../names.ts'
import type { TopicTerms } from '../store/store.ts'
import { type PubsubOptions, resolvePubsubOptions } from './options.ts'
import { Publisher } from './publisher.ts'
import { Subscription, type TopicPosition } from './subscription.ts'

/** Events of a Pubsub object. */
export interface PubsubEvents<M = unknown> {
  /** Messages that are published from now on arrive. The retained message follows, if there is one. */
  subscribed: []
  /** No more messages arrive, after `unsubscribe` or `disconnect` of the bus. */
  unsubscribed: []
  message: [message: M]
  /**
   * Messages are missing here: they were published during an outage, and are not kept. `missed`: their number; undefined if it is
   * not known, since Redis has lost the topic: perhaps none.
   */
  gap: [missed: number | undefined]
}

/**
 * A topic of pub/sub. Each subscribed Pubsub object receives each message once, in the order in which they were published. A
 * publisher need not subscribe. A subscription resumes by itself after an outage of Redis. It keeps the process alive.
 *
 * @example
 * const prices = bus.pubsub<Price>('prices', { keep: 1000 })
 * prices.on('message', (price) => show(price))
 * prices.on('gap', () => reload())
 * await prices.subscribe()
 */
export class Pubsub<M = unknown> extends ContextEmitter<PubsubEvents<M>> {
  readonly name: string
  readonly #terms: TopicTerms
  readonly #context: BusContext
  readonly #publisher: Publisher
  #subscription: Subscription | undefined
  #stopWatching: (() => void) | undefined

  /** @internal Made by `bus.pubsub`. @throws TypeError */
  constructor(name: string, options: PubsubOptions, context: BusContext) {
    super()
    checkName('name', name)
    this.name = name
    this.#terms = resolvePubsubOptions(options)
    this.#context = context
    this.#publisher = new Publisher(name, this.#terms, context)
  }

  /**
   * Subscribes. Resolves when all messages that are published from now on will arrive. Add listeners before: the retained message
   * may arrive earlier. `from`: goes on behind this message, the last one of another Pubsub object. Later messages are delivered
   * if they are kept; a `gap` stands for the others.
   * @throws AlreadyAttachedError if it is subscribed, or subscribes; UnavailableError; ClosedError after `disconnect`, and if
   * `unsubscribe` is called meanwhile; TypeError.
   */
  async subscribe({ from }: { from?: TopicPosition | undefined } = {}): Promise<void> {
    if (from !== undefined) checkPosition(from)
    this.#context.assertOpen()
    if (this.#subscription)
      throw new AlreadyAttachedError('The topic is subscribed to already', { key: this.name })
    const subscription = rootContext.run(
      () =>
        new Subscription(
          this.name,
          this.#terms,
          this.#context,
          {
            onSubscribed: () => this.emit('subscribed'),
            onMessage: (bytes) => this.#onMessage(bytes),
            onGap: (missed) => this.#onGap(missed),
          },
          from,
        ),
    )
    this.#subscription = subscription
    this.#stopWatching = this.#context.onDisconnect(() => this.unsubscribe())
    try {
      await rootContext.run(() => subscription.start())
    } catch (error) {
      if (this.#subscription === subscription) this.#forget()
      throw error
    }
  }

  /** Ends the subscription: no message arrives after it. Does nothing if there is none. Never rejects. */
  async unsubscribe(): Promise<void> {
    const subscription = this.#subscription
    if (!subscription) return
    const wasSubscribed = subscription.isSubscribed
    this.#forget()
    subscription.end()
    if (wasSubscribed) this.emit('unsubscribed')
  }

  #forget(): void {
    this.#subscription = undefined
    this.#stopWatching?.()
    this.#stopWatching = undefined
  }

  /** The same as `subscribe`. */
  attach(): Promise<void> {
    return this.subscribe()
  }

  /** The same as `unsubscribe`. */
  detach(): Promise<void> {
    return this.unsubscribe()
  }

  /** The last received message, also inside its listener; undefined while not subscribed. */
  get position(): TopicPosition | undefined {
    return this.#subscription?.position
  }

  /** Whether it is subscribed, also while Redis is away. */
  isSubscribed(): boolean {
    return this.#subscription?.isSubscribed === true
  }

  /**
   * Publishes a message. Messages of one Pubsub object are published in the order of the calls, together in batches. Resolves
   * when Redis has it.
   * @throws UnavailableError within `unavailableAfter`: if `sent`, it may have been published; OverloadedError if too many
   * messages wait; TooLargeError above `maxMessage`; CodecError; ClosedError.
   */
  async publish(message: M): Promise<void> {
    this.#context.assertOpen()
    const bytes = encodeLimited(this.#context, message, 'The message has', { key: this.name })
    await this.#publisher.publish(bytes)
  }

  #onGap(missed: number | undefined): void {
    emit('gap', { topic: this.name, missed })
    this.emit('gap', missed)
  }

  #onMessage(bytes: Buffer): void {
    let message: M
    try {
      message = decodeWith(this.#context.codec, bytes, this.name) as M
    } catch {
      return emit('undecodable', { key: this.name, fence: 0 })
    }
    this.emit('message', message)
  }
}

/** @throws TypeError */
function checkPosition(value: unknown): asserts value is TopicPosition {
  const { life, number } = (value ?? {}) as Partial<TopicPosition>
  if (
    typeof life === 'string' &&
    life !== '' &&
    life.length <= 64 &&
    Number.isSafeInteger(number) &&
    Number(number) >= 0
  )
    return
  throw expectedError('from', 'a position of a topic: { life, number }', value)
}
