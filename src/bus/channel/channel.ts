import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../../errors.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { encodeLimited } from '../../kernel/codec/limit.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { ContextEmitter } from '../../kernel/hooks.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { BusContext } from '../context.ts'
import { checkName } from '../names.ts'
import { checkMessageId } from '../queue/options.ts'
import type { Incoming } from '../store/store.ts'
import { type ChannelOptions, type ResolvedChannelOptions, resolveChannelOptions } from './options.ts'
import { RoleHolder } from './role-holder.ts'
import { RoleSenders } from './role-senders.ts'

/** Events of a Channel. */
export interface ChannelEvents<In> {
  /** This process has its role. */
  connect: []
  /** This process no longer has its role: `disconnect` or `end` was called, or it was paused for longer than the lease. */
  disconnect: []
  /** A process has taken the role of the peer. */
  'remote:connect': []
  /** The peer has disconnected, or has died. */
  'remote:disconnect': []
  message: [value: In, id: number, info: { readonly redelivered: number }]
  /** The peer has ended the channel. */
  end: []
}

type State = 'disconnected' | 'connecting' | 'connected' | 'disconnecting'

const TRANSITIONS: Transitions<State> = {
  disconnected: ['connecting'],
  connecting: ['connected', 'disconnecting'],
  connected: ['connecting', 'disconnecting'],
  disconnecting: ['disconnected'],
}

/** The name of the queue of a role. No queue of a user begins with this character. */
function queueOf(channel: string, role: string): string {
  return `\0${JSON.stringify([channel, role])}`
}

/**
 * A channel between two roles. One process at a time has a role. Each role has a queue; its process is the exclusive consumer of
 * it, under the lease of the role.
 *
 * disconnected   has no role
 * connecting     waits for its role
 * connected      has it
 * disconnecting  leaves it
 *
 * | event                           | disconnected | connecting    | connected     | disconnecting |
 * | ------------------------------- | ------------ | ------------- | ------------- | ------------- |
 * | connect, listen                 | connecting   |               |               |               |
 * | the role is free                |              | connected     |               |               |
 * | its lease was over              |              |               | connecting    |               |
 * | disconnect, end; the peer ended; expired |     | disconnecting | disconnecting |               |
 * | it has left                     |              |               |               | disconnected  |
 *
 * @example
 * const channel = bus.channel<string, string>('chat')
 * channel.on('message', (text) => console.log(text))
 * await channel.connect()   // the other process calls `listen`
 * await channel.send('hello')
 */
export class Channel<In = unknown, Out = unknown> extends ContextEmitter<ChannelEvents<In>> {
  readonly name: string
  readonly #local: string
  readonly #remote: string
  readonly #context: BusContext
  #state: State = 'disconnected'
  #holder: RoleHolder | undefined
  /** Whether the peer has ended the channel, or this process has, since it was connected last. */
  #isEnded = false
  readonly #senders: RoleSenders
  #stopListening = () => {}

  /** @internal */
  constructor(name: string, local: string, remote: string, context: BusContext) {
    super()
    this.name = name
    this.#local = local
    this.#remote = remote
    this.#context = context
    this.#senders = new RoleSenders(context, (role) => queueOf(name, role))
  }

  #moveTo(state: State): void {
    assertTransition('channel', TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /**
   * Takes the role `local`. Resolves when this process has it: after another process with the role has left or died.
   * @throws AlreadyAttachedError; UnavailableError; OverloadedError; ClosedError if it was disconnected meanwhile; TypeError.
   */
  connect(options: ChannelOptions = {}): Promise<void> {
    return this.#connect(this.#local, this.#remote, resolveChannelOptions(options))
  }

  /** Takes the role `remote`, and sends to `local`: see {@link connect}. */
  listen(options: ChannelOptions = {}): Promise<void> {
    return this.#connect(this.#remote, this.#local, resolveChannelOptions(options))
  }

  /** The same as {@link connect}. */
  attach(options: ChannelOptions = {}): Promise<void> {
    return this.connect(options)
  }

  async #connect(local: string, remote: string, options: ResolvedChannelOptions): Promise<void> {
    this.#context.assertOpen()
    if (this.#holder) throw new AlreadyAttachedError('The channel is connected', { key: this.name })
    this.#moveTo('connecting')
    this.#isEnded = false
    const queues = [queueOf(this.name, local), queueOf(this.name, remote)] as const
    const holder: RoleHolder = new RoleHolder(...queues, this.#context, options, {
      onRole: (has) => this.#onRole(holder, has),
      onRemoteConnect: () => this.emit('remote:connect'),
      onRemoteDisconnect: () => this.emit('remote:disconnect'),
      onMessage: (message) => this.#onMessage(holder, message),
      onLost: () => void this.#leave(holder, () => holder.close()),
    })
    this.#holder = holder
    this.#stopListening = this.#context.onDisconnect(() => this.disconnect())
    try {
      await holder.open()
    } catch (error) {
      await this.#leave(holder, () => holder.close())
      throw error
    }
  }

  #onRole(holder: RoleHolder, has: boolean): void {
    if (this.#holder !== holder || this.#state === 'disconnecting') return
    if (has === (this.#state === 'connected')) return
    this.#moveTo(has ? 'connected' : 'connecting')
    this.emit(has ? 'connect' : 'disconnect')
  }

  #onMessage(holder: RoleHolder, { kind, id, bytes, redelivered }: Incoming): void {
    if (kind === 'end') {
      this.#isEnded = true
      // Before a listener can disconnect: the queue would stay, with this message.
      void this.#leave(holder, () => holder.remove())
      this.emit('end')
      return
    }
    let value: In
    try {
      value = decodeWith(this.#context.codec, bytes, this.name) as In
    } catch {
      // Another codec wrote it. It would come again for ever.
      emit('undecodable', { key: this.name, fence: id })
      holder.drop(id)
      return
    }
    this.emit('message', value, id, { redelivered })
  }

  /**
   * Sends a message to the peer, in order. Without a peer, it waits for one. Resolves with its id.
   * @throws NotAttachedError if this process does not have its role; ClosedError if the channel was ended; QueueFullError;
   * UnavailableError: it may have been sent; CodecError; TooLargeError; OverloadedError.
   */
  async send(message: Out): Promise<number> {
    this.#context.assertOpen()
    if (this.#isEnded) throw new ClosedError('The channel was ended', { key: this.name })
    if (this.#state !== 'connected' || !this.#holder)
      throw new NotAttachedError('The channel is not connected', { key: this.name })
    return this.#holder.send(this.#encode(message))
  }

  /** Sends a message to a role without taking one. Resolves with its id. @throws As {@link send}, but NotAttachedError. */
  async sendTo(role: string, message: unknown): Promise<number> {
    checkName('role', role)
    this.#context.assertOpen()
    const bytes = this.#encode(message)
    return this.#senders.send(role, bytes)
  }

  #encode(value: unknown): Buffer {
    return encodeLimited(this.#context, value, 'The message has', { key: this.name })
  }

  /**
   * Acknowledges the messages up to this id. Without `reliable`, does nothing.
   * @throws LeaseLostError if the message was lost: it comes again. UnavailableError: it may come again.
   */
  async ack(id: number): Promise<void> {
    checkMessageId('id', id)
    await this.#holder?.ack(id)
  }

  /** Leaves the role: the peer is told, and another process can take the role, and gets the messages that wait. Never rejects. */
  async disconnect(): Promise<void> {
    const holder = this.#holder
    if (holder) await this.#leave(holder, () => holder.close())
  }

  /** The same as {@link disconnect}. */
  detach(): Promise<void> {
    return this.disconnect()
  }

  /**
   * Ends the channel: the peer gets all sent messages, then `end`, and is disconnected. Neither side can send any longer.
   * @throws NotAttachedError; UnavailableError: the peer may not learn of it.
   */
  async end(): Promise<void> {
    const holder = this.#holder
    if (!holder || this.#state !== 'connected')
      throw new NotAttachedError('The channel is not connected', { key: this.name })
    this.#isEnded = true
    await this.#leave(holder, () => holder.end())
  }

  async #leave(holder: RoleHolder, close: () => Promise<void>): Promise<void> {
    if (this.#holder !== holder || this.#state === 'disconnecting') return
    const hadRole = this.#state === 'connected'
    this.#moveTo('disconnecting')
    this.#stopListening()
    try {
      await close()
    } finally {
      this.#holder = undefined
      this.#moveTo('disconnected')
      if (hadRole) this.emit('disconnect')
    }
  }

  /** Whether this process has its role. */
  isAttached(): boolean {
    return this.#state === 'connected'
  }

  /** The same as {@link isAttached}. */
  isBound(): boolean {
    return this.isAttached()
  }
}
