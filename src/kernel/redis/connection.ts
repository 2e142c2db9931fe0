import { ClosedError } from '../../errors.ts'
import type { CensusOptions, CensusResult, Contributor } from '../census.ts'
import { checkPrefix, FORMAT } from '../keys.ts'
import {
  type Complete,
  checkOptions,
  defaultsOf,
  type OptionTable,
  unchecked,
  withDefaults,
} from '../options.ts'
import { warnOnce } from '../telemetry.ts'
import { type Clock, rootContext, systemClock } from '../time.ts'
import { ReplyCallbacks, type ReplyHandler, type Request } from './call.ts'
import { RedisCensus } from './census.ts'
import type { ChannelListener } from './channels.ts'
import {
  addressOf,
  BRAND,
  clientFor,
  isCluster,
  type RedisClusterClient,
  type RedisServerClient,
  type RedisSource,
  readsPrimary,
  subscriberFor,
} from './client.ts'
import { CommandGate } from './command-gate.ts'
import { warnIfUnreachable, warnOfEviction } from './diagnosis.ts'
import { Inbox, Subscriber } from './subscription.ts'

/** Options of a {@link Connection}. */
export interface ConnectionOptions {
  /**
   * Prefix of the pub/sub channels. An ACL must allow `&<channelPrefix>:*`.
   * @default 'soloflight'
   */
  channelPrefix?: string | undefined
  /**
   * A simulated clock, for tests.
   * @default systemClock
   */
  clock?: Clock | undefined
}

const CONNECTION_OPTIONS: OptionTable<ConnectionOptions, Complete<ConnectionOptions>> = {
  channelPrefix: [checkPrefix, 'soloflight'],
  clock: [unchecked, systemClock],
}

const CONNECTION_DEFAULTS: Complete<ConnectionOptions> = defaultsOf(CONNECTION_OPTIONS)

/** Receives the events of the subscription. */
export interface ConnectionListener {
  /** The subscription is established. Messages may have been missed: waiters should read the records again. */
  up(): void
  /** The subscription is lost. Messages may have been missed for up to 2 s. */
  down(): void
  /** A message to all processes has arrived. */
  broadcast(message: Buffer): void
}

/**
 * The two connections of a process to Redis: one for commands, one for the subscription. Any number of lockers, queues and
 * other layers can share it. It closes a client that it created (from a URL or options), and leaves a given client as it
 * is. It connects when it is first used. Errors reject the calls that they concern, and are never unhandled 'error' events.
 */
export class Connection implements AsyncDisposable {
  /** Dispatches the messages to this process. @internal */
  readonly inbox: Inbox = new Inbox()
  /** Whether this is a cluster: the keys of one script must share a slot. */
  readonly cluster: boolean
  /** Whether plain reads see what scripts have written: not if a cluster client reads from replicas. */
  readonly readsPrimary: boolean
  /** The option `channelPrefix` and the version of the format. A colon follows it in the names of all channels. @internal */
  readonly channelPrefix: string
  /** Prefix of the channels of all processes, before the id of an inbox. @internal */
  readonly inboxPrefix: string
  /** The channel of this process. @internal */
  readonly inboxChannel: string
  /** The channel of all processes. */
  readonly broadcastChannel: string
  readonly clock: Clock
  readonly #client: RedisServerClient | RedisClusterClient
  readonly #owned: boolean
  readonly #gate: CommandGate
  readonly #subscriber: Subscriber
  readonly #census: RedisCensus = new RedisCensus(this)
  readonly #listeners = new Set<ConnectionListener>()
  /** Objects that layers share, by purpose, with their reference counts. */
  readonly #shared = new Map<unknown, { object: unknown; users: number }>()
  /** idle until the first call. */
  #state: 'idle' | 'open' | 'closed' = 'idle'
  /** Cancels the warning that Redis is unreachable. Written once. */
  #stopWarning: (() => void) | undefined

  /** @throws TypeError if `redis` or an option is invalid. */
  constructor(redis: RedisSource, options: ConnectionOptions = {}) {
    Object.defineProperty(this, BRAND, { value: true })
    checkOptions(options, CONNECTION_OPTIONS)
    const { channelPrefix, clock } = withDefaults(options, CONNECTION_DEFAULTS)
    const { client, owned } = clientFor(redis)
    this.#client = client
    this.#owned = owned
    this.cluster = isCluster(client)
    this.readsPrimary = readsPrimary(client)
    this.clock = clock
    this.channelPrefix = `${channelPrefix}:${FORMAT}`
    this.inboxPrefix = `${this.channelPrefix}:inbox:`
    this.inboxChannel = this.inboxPrefix + this.inbox.id
    this.broadcastChannel = `${this.channelPrefix}:all`
    this.#gate = new CommandGate(client, owned, this.clock, () => warnOfEviction(client))
    this.#subscriber = new Subscriber(
      () => subscriberFor(client),
      [this.inboxChannel, this.broadcastChannel],
      {
        message: (channel, message) => this.#message(channel, message),
        up: () => this.#onSubscribed(),
        down: () => this.#notify((listener) => listener.down()),
      },
      this.clock,
    )
  }

  /** Whether it uses this client of the caller. */
  usesClient(client: unknown): boolean {
    return !this.#owned && client === this.#client
  }

  /** The address, without credentials: the same in all processes that give the same address. */
  get address(): string {
    return addressOf(this.#client)
  }

  /** Whether commands can be sent. */
  get connected(): boolean {
    return this.#client.status === 'ready'
  }

  /** Whether messages arrive. */
  get subscribed(): boolean {
    return this.#subscriber.up
  }

  /** The last error of the command client or else of the subscription, until the connection works again. */
  get lastError(): Error | undefined {
    return this.#gate.lastError ?? this.#subscriber.lastError
  }

  /** Calls without a reply, sent or queued. */
  get pending(): number {
    return this.#gate.pending
  }

  /**
   * Sends a request, and calls `handler` exactly once: within `timeout` ms, or within five times that while Redis replies to
   * other calls. Runs in the root async context, because connections, batches and timers serve other calls as well.
   * @internal
   */
  send(request: Request, timeout: number, handler: ReplyHandler): void {
    rootContext.run(() => {
      this.open()
      this.#gate.send(request, timeout, handler)
    })
  }

  /** Like {@link send}, as a promise. Rejects with UnavailableError, OverloadedError or ClosedError. @internal */
  call(request: Request, timeout: number): Promise<unknown> {
    return new Promise((resolve, reject) => this.send(request, timeout, new ReplyCallbacks(resolve, reject)))
  }

  /** Emits a process warning, once, if Redis is unreachable. @internal */
  warnIfUnreachable(): void {
    this.#stopWarning ??= warnIfUnreachable(this.#client, this.clock)
  }

  /** Returns the object of this connection for `purpose`, created for its first user. Each user must {@link releaseShared}. @internal */
  acquireShared<T>(purpose: unknown, make: () => T): T {
    const shared = this.#shared.get(purpose) ?? { object: make(), users: 0 }
    this.#shared.set(purpose, shared)
    shared.users++
    return shared.object as T
  }

  /** Releases the object for `purpose`. Returns whether this was its last user. @internal */
  releaseShared(purpose: unknown): boolean {
    const shared = this.#shared.get(purpose)
    if (shared && --shared.users > 0) return false
    return this.#shared.delete(purpose)
  }

  /** Adds a listener. The returned function removes it. @internal */
  listen(listener: ConnectionListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Listens to a channel, on the subscription of this process, until the returned function is called. `channel`: the full name,
   * in well-formed Unicode, below {@link channelPrefix}: an ACL allows that. UNSUBSCRIBE needs a permission too: without it, Redis
   * goes on sending messages that nobody wants, until the next reconnection. @internal
   * @throws ClosedError; Error if this is a channel of the connection itself.
   */
  subscribe(channel: string, listener: ChannelListener): () => void {
    if (this.#state === 'closed') throw new ClosedError('The connection is closed')
    if (channel === this.inboxChannel || channel === this.broadcastChannel)
      throw new Error(`The channel ${channel} belongs to the connection`)
    this.open()
    return this.#subscriber.channels.subscribe(channel, listener)
  }

  /** Adds what a layer of this process answers to a census. The returned function removes it. @internal */
  contribute(layer: string, contributor: Contributor): () => void {
    return this.#census.contribute(layer, contributor)
  }

  /**
   * Asks all live processes what they have in a layer. Can be repeated at will: nothing is changed by it. @internal
   * @throws UnavailableError, OverloadedError if the question cannot be sent in time; ClosedError; TypeError.
   */
  async census<Item = Record<string, unknown>>(options: CensusOptions): Promise<CensusResult<Item>> {
    if (this.#state === 'closed') throw new ClosedError('The connection is closed')
    this.open()
    return this.#census.census(options)
  }

  /** Connects, unless it has. The first call does it too. @internal */
  open(): void {
    if (this.#state !== 'idle') return
    this.#state = 'open'
    rootContext.run(() => this.#subscriber.open())
  }

  #onSubscribed(): void {
    this.#census.onSubscribed()
    this.#notify((listener) => listener.up())
  }

  #message(channel: string, message: Buffer): void {
    if (channel === this.inboxChannel) this.inbox.deliver(message)
    else if (channel !== this.broadcastChannel) this.#subscriber.channels.deliver(channel, message)
    else if (!this.#census.onBroadcast(message)) this.#notify((listener) => listener.broadcast(message))
  }

  #notify(call: (listener: ConnectionListener) => void): void {
    for (const listener of this.#listeners) call(listener)
  }

  /** Ends the subscription, and the command client if it is owned. Close the layers on it first. */
  async close(): Promise<void> {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#stopWarning?.()
    this.#census.close()
    this.#gate.close()
    this.#subscriber.close()
    if (this.#owned) this.#client.disconnect()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Connections on clients of the user, with their reference counts: layers on one client share one subscription. */
const borrowed = new WeakMap<object, { connection: Connection; users: number }>()

/** The options of a layer that choose its store. */
export interface BackendOptions {
  redis?: RedisSource | Connection | null | undefined
  store?: unknown
  clock?: Clock | undefined
}

/**
 * Returns the connection for the option `redis` of a layer, and a function by which the layer releases it; undefined in
 * embedded mode. A given Connection is never closed. Layers on one client share a connection, which the last of them closes.
 * @throws TypeError if `redis` is invalid.
 */
export function connectionFor(
  options: BackendOptions,
  layer: string,
): { connection: Connection; release: () => Promise<void> } | undefined {
  const { redis, store, clock } = options
  if (clock !== undefined && (store !== undefined || redis instanceof Connection))
    throw new TypeError(
      'Expected `clock` to be an option of the store or Connection that is given, not beside it',
    )
  if (redis === undefined && store === undefined && Object.hasOwn(options, 'redis')) {
    warnOnce(
      'SOLOFLIGHT_NO_REDIS',
      `The option \`redis\` of a ${layer} is undefined, so it works within this process alone. Is an environment variable missing? If this is intended, pass \`redis: null\` or omit the option.`,
    )
  }
  if (redis === undefined || redis === null) return undefined
  if (store !== undefined) throw new TypeError('Expected either `redis` or `store`, got both')
  if (redis instanceof Connection) return { connection: redis, release: async () => {} }
  const known = typeof redis === 'object' && clock === undefined ? borrowed.get(redis) : undefined
  const shared = known ?? { connection: new Connection(redis, { clock }), users: 0 }
  shared.users++
  if (typeof redis === 'object' && clock === undefined && shared.connection.usesClient(redis))
    borrowed.set(redis, shared)
  const release = async () => {
    if (--shared.users > 0) return
    if (typeof redis === 'object' && borrowed.get(redis) === shared) borrowed.delete(redis)
    await shared.connection.close()
  }
  return { connection: shared.connection, release }
}
