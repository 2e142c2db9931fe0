import { AlreadyAttachedError } from '../../errors.ts'
import type { PubsubOptions } from '../pubsub/options.ts'
import type { PubsubEvents } from '../pubsub/pubsub.ts'
import type { TopicPosition } from '../pubsub/subscription.ts'
import { Emitter } from './emitter.ts'
import { isPositionOrNull, type Push } from './gateway-message.ts'
import type { Link, LinkSubscription } from './link.ts'
import { after } from './timers.ts'
import { jsonOf, ms, RETRY_MS } from './wire.ts'

/** A topic of a bus behind a gateway: see Pubsub. It goes on behind the last message that it has received. */
export class RemotePubsub<M = unknown> extends Emitter<PubsubEvents<M>> {
  readonly name: string
  readonly #link: Link
  readonly #topicOptions: object
  readonly #subscription: LinkSubscription
  #state: 'unsubscribed' | 'subscribing' | 'subscribed' = 'unsubscribed'
  /** The last message that was received, or is known to be missing. */
  #position: TopicPosition | undefined

  /** @internal */
  constructor(name: string, { keep, retain, ttl }: PubsubOptions, link: Link) {
    super()
    this.name = name
    this.#link = link
    this.#topicOptions = { topic: name, keep, retain, ttl: ms(ttl) }
    this.#subscription = {
      sub: link.newSub(),
      restore: () => this.#restore(),
      onPush: (push) => this.#onPush(push),
      onClosed: () => void this.unsubscribe(),
    }
  }

  /**
   * Subscribes. Resolves when all messages that are published from now on will arrive.
   * @throws AlreadyAttachedError; UnavailableError; ClosedError; SoloflightError if the token lacks the scope `read`, or
   * `submit` for the options; TypeError.
   */
  async subscribe(): Promise<void> {
    if (this.#state !== 'unsubscribed')
      throw new AlreadyAttachedError('The topic is subscribed to already', { key: this.name })
    this.#state = 'subscribing'
    this.#link.add(this.#subscription)
    try {
      this.#goOnBehind(await this.#send())
    } catch (error) {
      if (this.#state === 'subscribing') this.#forget()
      throw error
    }
    if (this.#state !== 'subscribing') return
    this.#state = 'subscribed'
    this.emit('subscribed')
  }

  #send(): Promise<unknown> {
    const { sub } = this.#subscription
    const members = { ...this.#topicOptions, from: this.#position }
    return this.#link.call('subscribe', this.name, members, { sub, isAnswer: isPositionOrNull })
  }

  #restore(): void {
    if (this.#state !== 'subscribed') return
    this.#send().then(
      (position) => this.#goOnBehind(position),
      () => this.#restoreLater(),
    )
  }

  /** The store does not answer the gateway. Another socket restores it anyway. */
  #restoreLater(): void {
    after(RETRY_MS, () => this.#link.isOnline && this.#restore())
  }

  #goOnBehind(position: unknown): void {
    // A message that has come meanwhile is a later one.
    if (position) this.#position ??= position as TopicPosition
  }

  #onPush(push: Push): void {
    if (this.#state === 'unsubscribed') return
    if (push.kind !== 'topic' && push.kind !== 'gap') return
    this.#position = push.position ?? this.#position
    if (push.kind === 'topic') this.emit('message', push.message as M)
    else this.emit('gap', push.missed)
  }

  #forget(): void {
    this.#state = 'unsubscribed'
    this.#position = undefined
    this.#link.delete(this.#subscription.sub)
  }

  /** Ends the subscription: no message arrives after it. Never rejects. */
  async unsubscribe(): Promise<void> {
    if (this.#state === 'unsubscribed') return
    const wasSubscribed = this.#state === 'subscribed'
    this.#forget()
    if (this.#link.isOnline)
      this.#link.call('end', this.name, { sub: this.#subscription.sub }).catch(() => {})
    if (wasSubscribed) this.emit('unsubscribed')
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
    return this.#state === 'subscribed'
  }

  /**
   * Publishes a message. Resolves when the instance of the topic has it.
   * @throws UnavailableError: if `sent`, it may have been published; TooLargeError; OverloadedError; ClosedError.
   */
  async publish(message: M): Promise<void> {
    await this.#link.call('publish', this.name, { ...this.#topicOptions, message: jsonOf(message) })
  }
}
