import { AlreadyAttachedError, ClosedError } from '../../errors.ts'
import { type PubsubOptions, resolvePubsubOptions } from '../pubsub/options.ts'
import type { PubsubEvents } from '../pubsub/pubsub.ts'
import type { TopicPosition } from '../pubsub/subscription.ts'
import { Emitter } from './emitter.ts'
import { isPosition, isPositionOrNull, type Push } from './gateway-message.ts'
import type { Link, LinkSubscription } from './link.ts'
import { Later } from './timers.ts'
import { jsonOf, ms, RETRY_MS } from './wire.ts'

/** One subscription. */
interface Subscribed {
  /** Each has its own id: what still comes of an earlier one is not of this one. */
  readonly subscription: LinkSubscription
  readonly restoring: Later
  /** Whether its `subscribe` has been answered. */
  isEstablished: boolean
  /** The last message that was received, or is known to be missing. */
  position: TopicPosition | undefined
}

/** A topic of a bus behind a gateway: see Pubsub. It goes on behind its last received message. */
export class RemotePubsub<M = unknown> extends Emitter<PubsubEvents<M>> {
  readonly name: string
  readonly #link: Link
  readonly #topicOptions: object
  /** Undefined: it is not subscribed, and does not subscribe. */
  #subscribed: Subscribed | undefined

  /** @internal @throws TypeError */
  constructor(name: string, options: PubsubOptions, link: Link) {
    super()
    resolvePubsubOptions(options)
    const { keep, retain, ttl } = options
    this.name = name
    this.#link = link
    this.#topicOptions = { topic: name, keep, retain, ttl: ms(ttl) }
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
    if (this.#subscribed)
      throw new AlreadyAttachedError('The topic is subscribed to already', { key: this.name })
    const subscribed: Subscribed = {
      ...{ isEstablished: false, position: from },
      restoring: new Later(),
      subscription: {
        sub: this.#link.newSub(),
        restore: () => this.#restore(subscribed),
        onPush: (push) => this.#onPush(subscribed, push),
        onClosed: () => void this.unsubscribe(),
      },
    }
    this.#subscribed = subscribed
    this.#link.add(subscribed.subscription)
    try {
      await this.#send(subscribed)
    } catch (error) {
      this.#forget(subscribed)
      throw error
    }
    if (this.#subscribed !== subscribed) throw new ClosedError(UNSUBSCRIBED, { key: this.name })
    subscribed.isEstablished = true
    this.emit('subscribed')
  }

  async #send(subscribed: Subscribed): Promise<void> {
    const { sub } = subscribed.subscription
    const members = { ...this.#topicOptions, from: subscribed.position }
    const position = await this.#link.call('subscribe', this.name, members, {
      sub,
      isAnswer: isPositionOrNull,
    })
    // A message that has come meanwhile is a later one.
    if (position) subscribed.position ??= position as TopicPosition
  }

  #restore(subscribed: Subscribed): void {
    if (!subscribed.isEstablished || this.#subscribed !== subscribed) return
    const { restoring } = subscribed
    restoring.cancel()
    this.#send(subscribed).catch(() =>
      // The store does not answer the gateway. Another socket restores it anyway.
      restoring.after(RETRY_MS, () => this.#link.isOnline && this.#restore(subscribed)),
    )
  }

  #onPush(subscribed: Subscribed, push: Push): void {
    if (push.kind !== 'topic' && push.kind !== 'gap') return
    subscribed.position = push.position ?? subscribed.position
    if (push.kind === 'topic') this.emit('message', push.message as M)
    else this.emit('gap', push.missed)
  }

  #forget(subscribed: Subscribed): void {
    subscribed.restoring.cancel()
    this.#link.delete(subscribed.subscription.sub)
    if (this.#subscribed === subscribed) this.#subscribed = undefined
  }

  /** Ends the subscription: no message arrives after it. Never rejects. */
  async unsubscribe(): Promise<void> {
    const subscribed = this.#subscribed
    if (!subscribed) return
    const { sub } = subscribed.subscription
    this.#forget(subscribed)
    const isWithdrawn = this.#link.withdraw(sub, new ClosedError(UNSUBSCRIBED, { key: this.name }))
    if (!isWithdrawn && this.#link.isOnline) this.#link.call('end', this.name, { sub }).catch(() => {})
    if (subscribed.isEstablished) this.emit('unsubscribed')
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
    return this.#subscribed?.isEstablished === true
  }

  /** The last message that was received, also in the listener of it; undefined while it is not subscribed. */
  get position(): TopicPosition | undefined {
    return this.#subscribed?.position
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
