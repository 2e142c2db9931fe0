import type { Asker } from './call.ts'
import { checkFields } from './check.ts'
import {
  clientFor,
  isCluster,
  type RedisClusterClient,
  type RedisServerClient,
  type RedisSource,
  readsPrimary,
  subscriberFor,
} from './client.ts'
import { type Clock, systemClock } from './clock.ts'
import type { Request } from './command.ts'
import { Commands } from './commands.ts'
import { Inbox } from './inbox.ts'
import { checkPrefix, FORMAT } from './keys.ts'
import { Subscriber } from './subscriber.ts'

/** Options of a {@link Connection}. */
export interface ConnectionOptions {
  /**
   * Begins the names of the pub/sub channels: what an ACL must allow, as `&<channelPrefix>:*`.
   * @default 'soloflight'
   */
  channelPrefix?: string | undefined
  /** Another clock than the process's own: for tests. */
  clock?: Clock | undefined
}

/** What layers are told of the subscription. */
export interface ConnectionListener {
  /** Subscribed: whoever waits should look again, since messages may have been missed. */
  up(): void
  /** Messages may have been missed since up to 2 s ago. */
  down(): void
  /** A broadcast to all processes. */
  broadcast(message: Buffer): void
}

/**
 * The two connections of a process to Redis, one for commands and one subscription, shared by whatever number of
 * lockers and other layers. It owns what it made itself (from a URL or options) and leaves a borrowed client as it was.
 * Connects when first used; failures are told by the calls that they concern, never by an unhandled 'error'.
 */
export class Connection implements AsyncDisposable {
  /** Where messages for this process arrive. */
  readonly inbox: Inbox = new Inbox()
  /** Whether this is a cluster: keys of one script must then share a slot. */
  readonly cluster: boolean
  /** Whether plain reads see what scripts have written: not so where a cluster client reads from replicas. */
  readonly readsPrimary: boolean
  /** Name of this process's own channel. */
  readonly inboxChannel: string
  /** Name of the channel that all processes listen to. */
  readonly broadcastChannel: string
  readonly clock: Clock
  readonly #client: RedisServerClient | RedisClusterClient
  readonly #owned: boolean
  readonly #commands: Commands
  readonly #subscriber: Subscriber
  readonly #listeners = new Set<ConnectionListener>()
  /** One object per layer and purpose, shared by all that use this connection. */
  readonly #shared = new Map<unknown, unknown>()
  #opened = false
  #closing: Promise<void> | undefined

  /** @throws TypeError when `redis` or an option is not what it should be. */
  constructor(redis: RedisSource, options: ConnectionOptions = {}) {
    checkFields('options', options, ['channelPrefix', 'clock'])
    const { client, owned } = clientFor(redis)
    this.#client = client
    this.#owned = owned
    this.cluster = isCluster(client)
    this.readsPrimary = readsPrimary(client)
    this.clock = options.clock ?? systemClock
    const prefix = `${checkPrefix(options.channelPrefix ?? 'soloflight')}:${FORMAT}`
    this.inboxChannel = `${prefix}:inbox:${this.inbox.id}`
    this.broadcastChannel = `${prefix}:all`
    this.#commands = new Commands(client, owned, this.clock)
    this.#subscriber = new Subscriber(
      () => subscriberFor(client),
      [this.inboxChannel, this.broadcastChannel],
      {
        message: (channel, message) => this.#message(channel, message),
        up: () => this.#each((listener) => listener.up()),
        down: () => this.#each((listener) => listener.down()),
      },
      this.clock,
    )
  }

  /** Whether messages arrive. */
  get subscribed(): boolean {
    return this.#subscriber.up
  }

  /** Commands that wait for Redis, sent or not. */
  get pending(): number {
    return this.#commands.pending
  }

  /** Asks Redis, and calls back exactly once by `within` ms. */
  ask(request: Request, within: number, asker: Asker): void {
    if (!this.#opened) this.#open()
    this.#commands.ask(request, within, asker)
  }

  /** The same as a promise. Rejects with UnavailableError, OverloadedError or ClosedError. */
  call(request: Request, within: number): Promise<unknown> {
    return new Promise((answered, failed) => this.ask(request, within, { answered, failed }))
  }

  /** The object of this connection for `purpose`, made at the first call. */
  share<T>(purpose: unknown, make: () => T): T {
    if (!this.#shared.has(purpose)) this.#shared.set(purpose, make())
    return this.#shared.get(purpose) as T
  }

  /** Adds a listener; the returned function takes it away. */
  listen(listener: ConnectionListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #open(): void {
    this.#opened = true
    if (!this.#closing) this.#subscriber.open()
  }

  #message(channel: string, message: Buffer): void {
    if (channel === this.inboxChannel) this.inbox.deliver(message)
    else this.#each((listener) => listener.broadcast(message))
  }

  #each(tell: (listener: ConnectionListener) => void): void {
    for (const listener of this.#listeners) tell(listener)
  }

  /** Ends the subscription, then the command client if it is ours. Close the layers on it first. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#commands.close()
    this.#subscriber.close()
    if (this.#owned) this.#client.disconnect()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
