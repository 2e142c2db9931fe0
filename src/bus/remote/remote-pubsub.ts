import { AlreadyAttachedError, ClosedError } from '../../errors.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { type PubsubOptions, resolvePubsubOptions } from '../pubsub/options.ts'
import type { PubsubEvents } from '../pubsub/pubsub.ts'
import type { TopicPosition } from '../pubsub/subscription.ts'
import { Emitter } from './emitter.ts'
import { isPosition, isPositionOrNull, type Push } from './gateway-message.ts'
import type { Link } from './link.ts'
import { RemoteSubscription } from './subscription.ts'
import { jsonOf, ms } from './wire.ts'

/** A subscription of the topic. */
interface TopicSubscription {
  readonly subscription: RemoteSubscription
  /** The last message that was received, or is known to be missing. */
  position: TopicPosition | undefined
}

/**
 * | event                                      | unsubscribed | subscribing  | subscribed   |
 * | ------------------------------------------ | ------------ | ------------ | ------------ |
 * | `subscribe`                                | subscribing  |              |              |
 * | the gateway has subscribed                 |              | subscribed   |              |
 * | it has not, or does not answer             |              | unsubscribed |              |
 * | `unsubscribe`, or the bus is disconnected  |              | unsubscribed | unsubscribed |
 */
type State =
  | { readonly kind: 'unsubscribed'; readonly topic?: undefined }
  | { readonly kind: 'subscribing' | 'subscribed'; readonly topic: TopicSubscription }

const TRANSITIONS: Transitions<State['kind']> = {
  unsubscribed: ['subscribing'],
  subscribing: ['subscribed', 'unsubscribed'],
  subscribed: ['unsubscribed'],
}

/** A topic of a bus behind a gateway: see Pubsub. It goes on behind its last received message. */
export class RemotePubsub<M = unknown> extends Emitter<PubsubEvents<M>> {
  readonly name: string
  readonly #link: Link
  readonly #topicOptions: object
  #state: State = { kind: 'unsubscribed' }

  /** @internal @throws TypeError */
  constructor(name: string, options: PubsubOptions, link: Link) {
    super()
    resolvePubsubOptions(options)
    const { keep, retain, ttl } = options
    this.name = name
    this.#link = link
    this.#topicOptions = { topic: name, keep, retain, ttl: ms(ttl) }
  }

  #moveTo(state: State): void {
    assertTransition('remote topic', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /**
   * Subscribes. Resolves when all messages that are published from now on will arrive. `from`: goes on behind this message, as
   * Pubsub.
   * @throws AlreadyAttachedError; UnavailableError; ClosedError, also if `unsubscribe` is called meanwhile; SoloflightError if
   * the token lacks the scope `read`, or `submit` for the options; TypeError.
   */
  async subscribe({ from }: { from?: TopicPosition | undefined } = {}): Promise<void> {
    if (from !== undefined && !isPosition(from))
      throw new TypeError('Expected `from` to be the position of a message')
    if (this.#state.kind !== 'unsubscribed')
      throw new AlreadyAttachedError('The topic is subscribed to already', { key: this.name })
    const subscription = new RemoteSubscription(this.name, this.#link, {
      isEstablished: () => this.#state.kind === 'subscribed',
      send: () => this.#send(topic),
      onPush: (push) => this.#onPush(topic, push),
      onClosed: () => void this.unsubscribe(),
    })
    const topic: TopicSubscription = { subscription, position: from }
    this.#moveTo({ kind: 'subscribing', topic })
    this.#link.add(subscription)
    try {
      await this.#send(topic)
    } catch (error) {
      this.#forget(topic)
      throw error
    }
    if (this.#state.topic !== topic) throw new ClosedError(UNSUBSCRIBED, { key: this.name })
    this.#moveTo({ kind: 'subscribed', topic })
    this.emit('subscribed')
  }

  async #send(topic: TopicSubscription): Promise<void> {
    const { sub } = topic.subscription
    const members = { ...this.#topicOptions, from: topic.position }
    const terms = { sub, isAnswer: isPositionOrNull }
    const position = await this.#link.call('subscribe', this.name, members, terms)
    // A message that has come meanwhile is a later one.
    if (position) topic.position ??= position as TopicPosition
  }

  #onPush(topic: TopicSubscription, push: Push): void {
    if (push.kind !== 'topic' && push.kind !== 'gap') return
    topic.position = push.position ?? topic.position
    if (push.kind === 'topic') this.emit('message', push.message as M)
    else this.emit('gap', push.missed)
  }

  #forget(topic: TopicSubscription): void {
    topic.subscription.forget()
    if (this.#state.topic === topic) this.#moveTo({ kind: 'unsubscribed' })
  }

  /** Ends the subscription: no message arrives after it. Never rejects. */
  async unsubscribe(): Promise<void> {
    const { kind, topic } = this.#state
    if (!topic) return
    const { subscription } = topic
    this.#forget(topic)
    const isWithdrawn = this.#link.withdraw(
      subscription.sub,
      new ClosedError(UNSUBSCRIBED, { key: this.name }),
    )
    if (!isWithdrawn) void subscription.end()
    if (kind === 'subscribed') this.emit('unsubscribed')
  }

  /** The same as {@link subscribe}. */
  attach(): Promise<void> {
    return this.subscribe()
  }

  /** The same as {@link unsubscribe}. */
  detach(): Promise<void> {
    return this.unsubscribe()
  }

  /** Whether it is subscribed, also while the gateway is away. */
  isSubscribed(): boolean {
    return this.#state.kind === 'subscribed'
  }

  /** The last message that was received, also in the listener of it; undefined while it is not subscribed. */
  get position(): TopicPosition | undefined {
    return this.#state.topic?.position
  }

  /**
   * Publishes a message. Resolves when the instance of the topic has it.
   * @throws UnavailableError: if `sent`, it may have been published; TooLargeError; OverloadedError; ClosedError.
   */
  async publish(message: M): Promise<void> {
    await this.#link.call('publish', this.name, { ...this.#topicOptions, message: jsonOf(message) })
  }
}

const UNSUBSCRIBED = 'The topic was unsubscribed from'
