import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../../errors.ts'
import type { ChannelEvents } from '../channel/channel.ts'
import { type ChannelOptions, resolveChannelOptions } from '../channel/options.ts'
import { checkMessageId } from '../queue/options.ts'
import { Emitter } from './emitter.ts'
import { isCount, type Push } from './gateway-message.ts'
import type { Link, LinkSubscription } from './link.ts'
import { after, Later, reportUncaught } from './timers.ts'
import { checkRemoteName, finite, jsonOf, ms, RETRY_MS } from './wire.ts'

/** One stay in a role, and how it was taken. */
interface Stay {
  readonly local: string
  readonly remote: string
  readonly options: ChannelOptions
  /** Each stay has its own id: what still comes of an earlier one is not of this one. */
  readonly subscription: LinkSubscription
  readonly restoring: Later
  /** Whether its `connect` has been answered. */
  isEstablished: boolean
  /** Of the throttle: the present question of the gateway. */
  question: object | undefined
}

/**
 * A channel of a bus behind a gateway: see Channel. While the gateway is away, this process does not have its role; it takes it
 * again afterwards.
 */
export class RemoteChannel<In = unknown, Out = unknown> extends Emitter<ChannelEvents<In>> {
  readonly name: string
  readonly #local: string
  readonly #remote: string
  readonly #link: Link
  /** Undefined: it is not connected, and does not connect. */
  #stay: Stay | undefined
  #hasRole = false

  /** @internal */
  constructor(name: string, local: string, remote: string, link: Link) {
    super()
    this.name = name
    this.#local = local
    this.#remote = remote
    this.#link = link
  }

  /**
   * Takes the role `local`. Resolves when it has it.
   * @throws AlreadyAttachedError; UnavailableError; ClosedError if it was disconnected meanwhile; TypeError.
   */
  connect(options: ChannelOptions = {}): Promise<void> {
    return this.#connect(this.#local, this.#remote, options)
  }

  /** Takes the role `remote`, and sends to `local`: see {@link connect}. */
  listen(options: ChannelOptions = {}): Promise<void> {
    return this.#connect(this.#remote, this.#local, options)
  }

  /** The same as {@link connect}. */
  attach(options: ChannelOptions = {}): Promise<void> {
    return this.connect(options)
  }

  async #connect(local: string, remote: string, options: ChannelOptions): Promise<void> {
    resolveChannelOptions(options)
    if (this.#stay) throw new AlreadyAttachedError('The channel is connected', { key: this.name })
    const stay: Stay = {
      ...{ local, remote, options, isEstablished: false, question: undefined },
      restoring: new Later(),
      subscription: {
        sub: this.#link.newSub(),
        restore: () => this.#restore(stay),
        onPush: (push) => this.#onPush(stay, push),
        onLost: () => this.#onLost(stay),
        onClosed: () => this.#forget(stay),
      },
    }
    this.#stay = stay
    this.#link.add(stay.subscription)
    try {
      await this.#send(stay)
    } catch (error) {
      this.#forget(stay)
      throw error
    }
    if (this.#stay !== stay) throw new ClosedError(DISCONNECTED, { key: this.name })
    stay.isEstablished = true
  }

  #send({ local, remote, options, subscription: { sub } }: Stay): Promise<unknown> {
    const { ttl, lease, maxsize, throttle, ...rest } = options
    const sent = { ...rest, ttl: ms(ttl), lease: ms(lease), maxsize: finite(maxsize) }
    const pace = throttle && 'throttle'
    const members = { channel: this.name, local, remote, ...sent, pace }
    return this.#link.call('connect', this.name, members, { sub, mayWait: true })
  }

  #restore(stay: Stay): void {
    if (!stay.isEstablished || this.#stay !== stay) return
    stay.restoring.cancel()
    this.#send(stay).catch(() =>
      // The store does not answer the gateway. Another socket restores it anyway.
      stay.restoring.after(RETRY_MS, () => this.#link.isOnline && !this.#hasRole && this.#restore(stay)),
    )
  }

  #onPush(stay: Stay, push: Push): void {
    if (push.kind === 'message') {
      const { id, redelivered } = push.info
      this.emit('message', push.message as In, id, { redelivered })
    } else if (push.kind === 'event') this.#onEvent(stay, push.event)
  }

  #onEvent(stay: Stay, event: string): void {
    if (event === 'connect') this.#setRole(true)
    else if (event === 'disconnect') this.#setRole(false)
    else if (event === 'remote:connect' || event === 'remote:disconnect') this.emit(event)
    else if (event === 'throttle') this.#onThrottle(stay)
    else if (event === 'end') {
      this.emit('end')
      const { sub } = stay.subscription
      this.#forget(stay)
      if (this.#link.isOnline) this.#link.call('end', this.name, { sub }).catch(() => {})
    }
  }

  /** The gateway asks whether it may fetch. */
  #onThrottle(stay: Stay): void {
    const question = {}
    stay.question = question
    try {
      stay.options.throttle?.(() => this.#sendReady(stay, question))
    } catch (error) {
      reportUncaught(error)
    }
  }

  /** Sent again until the gateway has answered: it is idempotent. */
  #sendReady(stay: Stay, question: object): void {
    if (stay.question !== question || this.#stay !== stay || !this.#link.isOnline) return
    this.#link
      .call('ready-channel', this.name, { sub: stay.subscription.sub })
      .then(() => {
        if (stay.question === question) stay.question = undefined
      })
      .catch(() => after(RETRY_MS, () => this.#sendReady(stay, question)))
  }

  /** The socket has ended: a later one asks anew. */
  #onLost(stay: Stay): void {
    stay.question = undefined
    this.#setRole(false)
  }

  #setRole(has: boolean): void {
    if (has === this.#hasRole) return
    this.#hasRole = has
    this.emit(has ? 'connect' : 'disconnect')
  }

  #forget(stay: Stay): void {
    stay.restoring.cancel()
    this.#link.delete(stay.subscription.sub)
    if (this.#stay !== stay) return
    this.#stay = undefined
    this.#setRole(false)
  }

  /**
   * Sends a message to the peer, in order. Resolves with its id.
   * @throws NotAttachedError; ClosedError if the channel was ended; QueueFullError; UnavailableError; CodecError; TooLargeError.
   */
  async send(message: Out): Promise<number> {
    const members = { sub: this.#connected().subscription.sub, message: jsonOf(message) }
    return Number(await this.#link.call('send', this.name, members, { isAnswer: isCount }))
  }

  /** @throws NotAttachedError */
  #connected(): Stay {
    if (this.#stay) return this.#stay
    throw new NotAttachedError('The channel is not connected', { key: this.name })
  }

  /** Sends a message to a role without taking one. Resolves with its id. */
  async sendTo(role: string, message: unknown): Promise<number> {
    checkRemoteName('role', role)
    const members = { channel: this.name, role, message: jsonOf(message) }
    return Number(await this.#link.call('send-to', this.name, members, { isAnswer: isCount }))
  }

  /** Acknowledges the messages up to this id. @throws LeaseLostError, UnavailableError, TypeError. */
  async ack(id: number): Promise<void> {
    checkMessageId('id', id)
    if (!this.#stay) return
    await this.#link.call('ack-channel', this.name, { sub: this.#stay.subscription.sub, upTo: id })
  }

  /** Leaves the role; a `connect` that waits for it rejects. Never rejects. */
  async disconnect(): Promise<void> {
    const stay = this.#stay
    if (!stay) return
    const { sub } = stay.subscription
    const isWithdrawn = this.#link.withdraw(sub, new ClosedError(DISCONNECTED, { key: this.name }))
    if (!isWithdrawn && this.#link.isOnline) await this.#link.call('end', this.name, { sub }).catch(() => {})
    this.#forget(stay)
  }

  /** The same as {@link disconnect}. */
  detach(): Promise<void> {
    return this.disconnect()
  }

  /** Ends the channel: the peer gets `end`. @throws NotAttachedError, UnavailableError. */
  async end(): Promise<void> {
    const stay = this.#connected()
    const { sub } = stay.subscription
    await this.#link.call('end-channel', this.name, { sub })
    this.#forget(stay)
    if (this.#link.isOnline) this.#link.call('end', this.name, { sub }).catch(() => {})
  }

  /** Whether this process has its role. */
  isAttached(): boolean {
    return this.#hasRole
  }

  /** The same as {@link isAttached}. */
  isBound(): boolean {
    return this.isAttached()
  }
}

const DISCONNECTED = 'The channel was disconnected'
