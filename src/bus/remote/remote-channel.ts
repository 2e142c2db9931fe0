import { AlreadyAttachedError, NotAttachedError } from '../../errors.ts'
import type { ChannelEvents } from '../channel/channel.ts'
import type { ChannelOptions } from '../channel/options.ts'
import { Emitter } from './emitter.ts'
import { isCount, type Push } from './gateway-message.ts'
import type { Link, LinkSubscription } from './link.ts'
import { after } from './timers.ts'
import { checkRemoteName, finite, jsonOf, ms, RETRY_MS } from './wire.ts'

/** Options of a channel behind a gateway. That fetches as fast as the client reads. */
export type RemoteChannelOptions = Omit<ChannelOptions, 'throttle'>

/** The role that is taken, and how. */
interface Connected {
  readonly local: string
  readonly remote: string
  readonly options: RemoteChannelOptions
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
  readonly #subscription: LinkSubscription
  /** Undefined: it is not connected, and does not connect. */
  #connected: Connected | undefined
  #hasRole = false
  /** Whether its first `connect` has been answered. */
  #isEstablished = false

  /** @internal */
  constructor(name: string, local: string, remote: string, link: Link) {
    super()
    this.name = name
    this.#local = local
    this.#remote = remote
    this.#link = link
    this.#subscription = {
      sub: link.newSub(),
      restore: () => this.#restore(),
      onPush: (push) => this.#onPush(push),
      onLost: () => this.#setRole(false),
      onClosed: () => this.#forget(),
    }
  }

  /** Takes the role `local`. Resolves when it has it. @throws AlreadyAttachedError, UnavailableError, ClosedError, TypeError. */
  connect(options: RemoteChannelOptions = {}): Promise<void> {
    return this.#connect({ local: this.#local, remote: this.#remote, options })
  }

  /** Takes the role `remote`, and sends to `local`: see {@link connect}. */
  listen(options: RemoteChannelOptions = {}): Promise<void> {
    return this.#connect({ local: this.#remote, remote: this.#local, options })
  }

  /** The same as {@link connect}. */
  attach(options: RemoteChannelOptions = {}): Promise<void> {
    return this.connect(options)
  }

  async #connect(connected: Connected): Promise<void> {
    if (this.#connected) throw new AlreadyAttachedError('The channel is connected', { key: this.name })
    this.#connected = connected
    this.#link.add(this.#subscription)
    try {
      await this.#send(connected)
      this.#isEstablished = true
    } catch (error) {
      if (this.#connected === connected) this.#forget()
      throw error
    }
  }

  #send({ local, remote, options }: Connected): Promise<unknown> {
    const { ttl, lease, maxsize, ...rest } = options
    const sent = { ...rest, ttl: ms(ttl), lease: ms(lease), maxsize: finite(maxsize) }
    const members = { channel: this.name, local, remote, ...sent }
    return this.#link.call('connect', this.name, members, { sub: this.#subscription.sub, mayWait: true })
  }

  #restore(): void {
    if (!this.#connected || !this.#isEstablished) return
    this.#send(this.#connected).catch(() =>
      after(RETRY_MS, () => this.#link.isOnline && !this.#hasRole && this.#restore()),
    )
  }

  #onPush(push: Push): void {
    if (!this.#connected) return
    if (push.kind === 'message') {
      const { id, redelivered } = push.info
      this.emit('message', push.message as In, id, { redelivered })
    } else if (push.kind === 'event') this.#onEvent(push.event)
  }

  #onEvent(event: string): void {
    if (event === 'connect') this.#setRole(true)
    else if (event === 'disconnect') this.#setRole(false)
    else if (event === 'remote:connect' || event === 'remote:disconnect') this.emit(event)
    else if (event === 'end') {
      this.emit('end')
      this.#forget()
    }
  }

  #setRole(has: boolean): void {
    if (has === this.#hasRole) return
    this.#hasRole = has
    this.emit(has ? 'connect' : 'disconnect')
  }

  #forget(): void {
    const { sub } = this.#subscription
    this.#connected = undefined
    this.#isEstablished = false
    this.#link.delete(sub)
    if (this.#link.isOnline) this.#link.call('end', this.name, { sub }).catch(() => {})
    this.#setRole(false)
  }

  /**
   * Sends a message to the peer, in order. Resolves with its id.
   * @throws NotAttachedError; ClosedError if the channel was ended; QueueFullError; UnavailableError; CodecError; TooLargeError.
   */
  async send(message: Out): Promise<number> {
    if (!this.#connected) throw new NotAttachedError('The channel is not connected', { key: this.name })
    const members = { sub: this.#subscription.sub, message: jsonOf(message) }
    return Number(await this.#link.call('send', this.name, members, { isAnswer: isCount }))
  }

  /** Sends a message to a role without taking one. Resolves with its id. */
  async sendTo(role: string, message: unknown): Promise<number> {
    checkRemoteName('role', role)
    const members = { channel: this.name, role, message: jsonOf(message) }
    return Number(await this.#link.call('send-to', this.name, members, { isAnswer: isCount }))
  }

  /** Acknowledges the messages up to this id. @throws LeaseLostError, UnavailableError. */
  async ack(id: number): Promise<void> {
    await this.#link.call('ack-channel', this.name, { sub: this.#subscription.sub, upTo: id })
  }

  /** Leaves the role. Never rejects. */
  async disconnect(): Promise<void> {
    if (!this.#connected) return
    const { sub } = this.#subscription
    if (this.#link.isOnline) await this.#link.call('end', this.name, { sub }).catch(() => {})
    if (this.#connected) this.#forget()
  }

  /** The same as {@link disconnect}. */
  detach(): Promise<void> {
    return this.disconnect()
  }

  /** Ends the channel: the peer gets `end`. @throws NotAttachedError, UnavailableError. */
  async end(): Promise<void> {
    if (!this.#connected) throw new NotAttachedError('The channel is not connected', { key: this.name })
    await this.#link.call('end-channel', this.name, { sub: this.#subscription.sub })
    if (this.#connected) this.#forget()
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
