import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../../errors.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { ChannelEvents } from '../channel/channel.ts'
import { type ChannelOptions, resolveChannelOptions } from '../channel/options.ts'
import { checkMessageId } from '../queue/options.ts'
import { Emitter } from './emitter.ts'
import { isCount, type Push } from './gateway-message.ts'
import type { Link } from './link.ts'
import { RemoteSubscription } from './subscription.ts'
import { RemoteThrottle, tellUntilAnswered } from './throttle.ts'
import { checkRemoteName, finite, jsonOf, ms } from './wire.ts'

/** A role that this process takes: which, and how. */
interface Role {
  readonly local: string
  readonly remote: string
  readonly options: ChannelOptions
  readonly subscription: RemoteSubscription
  readonly throttle: RemoteThrottle
}

/**
 * disconnected  takes no role
 * connecting    `connect` is not answered
 * bound         has its role
 * waiting       has lost it: the gateway takes it again, or another socket does
 *
 * | event                                                    | disconnected | connecting   | bound        | waiting      |
 * | -------------------------------------------------------- | ------------ | ------------ | ------------ | ------------ |
 * | `connect`, `listen`                                      | connecting   |              |              |              |
 * | the gateway has the role                                 |              | bound        |              | bound        |
 * | it has lost it, or the socket has ended                  |              |              | waiting      |              |
 * | `connect` is answered                                    |              | waiting      |              |              |
 * | it is refused; `disconnect`, `end`, the bus disconnected |              | disconnected | disconnected | disconnected |
 */
type State =
  | { readonly kind: 'disconnected'; readonly role?: undefined }
  | { readonly kind: 'connecting' | 'bound' | 'waiting'; readonly role: Role }

const TRANSITIONS: Transitions<State['kind']> = {
  disconnected: ['connecting'],
  connecting: ['bound', 'waiting', 'disconnected'],
  bound: ['waiting', 'disconnected'],
  waiting: ['bound', 'disconnected'],
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
  #state: State = { kind: 'disconnected' }

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

  #moveTo(state: State): void {
    assertTransition('remote channel', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  async #connect(local: string, remote: string, options: ChannelOptions): Promise<void> {
    resolveChannelOptions(options)
    if (this.#state.kind !== 'disconnected')
      throw new AlreadyAttachedError('The channel is connected', { key: this.name })
    const subscription = new RemoteSubscription(this.name, this.#link, {
      isEstablished: () => this.#state.kind === 'waiting',
      send: () => this.#send(role),
      onPush: (push) => this.#onPush(role, push),
      onLost: () => this.#onLost(role),
      onClosed: () => this.#forget(role),
    })
    const throttle = new RemoteThrottle(options.throttle, () => this.#sendReady(role))
    const role: Role = { local, remote, options, subscription, throttle }
    this.#moveTo({ kind: 'connecting', role })
    this.#link.add(subscription)
    try {
      await this.#send(role)
    } catch (error) {
      this.#forget(role)
      throw error
    }
    this.#onAnswered(role)
  }

  /** @throws ClosedError if it was disconnected meanwhile. */
  #onAnswered(role: Role): void {
    if (this.#state.role !== role) throw new ClosedError(DISCONNECTED, { key: this.name })
    if (this.#state.kind === 'connecting') this.#moveTo({ kind: 'waiting', role })
  }

  #send({ local, remote, options, subscription: { sub } }: Role): Promise<unknown> {
    const { ttl, lease, maxsize, throttle, ...rest } = options
    const sent = { ...rest, ttl: ms(ttl), lease: ms(lease), maxsize: finite(maxsize) }
    const pace = throttle && 'throttle'
    const members = { channel: this.name, local, remote, ...sent, pace }
    return this.#link.call('connect', this.name, members, { sub, mayWait: true })
  }

  #onPush(role: Role, push: Push): void {
    if (push.kind === 'message') {
      const { id, redelivered } = push.info
      this.emit('message', push.message as In, id, { redelivered })
    } else if (push.kind === 'event') this.#onEvent(role, push.event)
  }

  #onEvent(role: Role, event: string): void {
    if (event === 'connect') this.#onRole(role, true)
    else if (event === 'disconnect') this.#onRole(role, false)
    else if (event === 'remote:connect' || event === 'remote:disconnect') this.emit(event)
    else if (event === 'throttle') role.throttle.ask()
    else if (event === 'end') {
      this.emit('end')
      this.#leave(role)
    }
  }

  /** The gateway may fetch. */
  #sendReady({ subscription: { sub }, throttle }: Role): void {
    const isWanted = () => throttle.isReady && this.#link.isOnline
    tellUntilAnswered(isWanted, () => this.#link.call('ready-channel', this.name, { sub }))
  }

  #onLost(role: Role): void {
    role.throttle.forget()
    this.#onRole(role, false)
  }

  /** The gateway has the role for this process, or has it no more. */
  #onRole(role: Role, has: boolean): void {
    if (has === this.isAttached()) return
    this.#moveTo({ kind: has ? 'bound' : 'waiting', role })
    this.emit(has ? 'connect' : 'disconnect')
  }

  /** It is not connected any more. The gateway may be. */
  #leave(role: Role): void {
    this.#forget(role)
    void role.subscription.end()
  }

  #forget(role: Role): void {
    role.subscription.forget()
    role.throttle.forget()
    if (this.#state.role !== role) return
    const wasBound = this.isAttached()
    this.#moveTo({ kind: 'disconnected' })
    if (wasBound) this.emit('disconnect')
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
  #connected(): Role {
    if (this.#state.role) return this.#state.role
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
    const { role } = this.#state
    if (!role) return
    await this.#link.call('ack-channel', this.name, { sub: role.subscription.sub, upTo: id })
  }

  /** Leaves the role; a `connect` that waits for it rejects. Never rejects. */
  async disconnect(): Promise<void> {
    const { role } = this.#state
    if (!role) return
    const { subscription } = role
    const isWithdrawn = this.#link.withdraw(
      subscription.sub,
      new ClosedError(DISCONNECTED, { key: this.name }),
    )
    if (!isWithdrawn) await subscription.end()
    this.#forget(role)
  }

  /** The same as {@link disconnect}. */
  detach(): Promise<void> {
    return this.disconnect()
  }

  /** Ends the channel: the peer gets `end`. @throws NotAttachedError, UnavailableError. */
  async end(): Promise<void> {
    const role = this.#connected()
    await this.#link.call('end-channel', this.name, { sub: role.subscription.sub })
    this.#leave(role)
  }

  /** Whether this process has its role. */
  isAttached(): boolean {
    return this.#state.kind === 'bound'
  }

  /** The same as {@link isAttached}. */
  isBound(): boolean {
    return this.isAttached()
  }
}

const DISCONNECTED = 'The channel was disconnected'
