import { checkFields } from '../options.ts'
import { type Clock, systemClock } from '../time/clock.ts'
import { warnOnce } from '../warnings.ts'
import { rootContext } from '../work/user-code.ts'
import { ReplyCallbacks, type ReplyHandler } from './call.ts'
import {
  BRAND,
  clientFor,
  isCluster,
  type RedisClusterClient,
  type RedisServerClient,
  type RedisSource,
  readsPrimary,
  subscriberFor,
} from './client.ts'
import type { Request } from './command.ts'
import { CommandGate } from './command-gate.ts'
import { warnOfEviction } from './eviction.ts'
import { Inbox } from './inbox.ts'
import { checkPrefix, FORMAT } from './keys.ts'
import { Subscriber } from './subscriber.ts'
import { warnIfUnreachable } from './unreachable.ts'

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
  readonly #gate: CommandGate
  readonly #subscriber: Subscriber
  readonly #listeners = new Set<ConnectionListener>()
  /** One object per layer and purpose, and how many use it. */
  readonly #shared = new Map<unknown, { object: unknown; users: number }>()
  #opened = false
  /** Takes the warning back that Redis cannot be reached. Set once: there is one warning. */
  #stopWarning: (() => void) | undefined
  #closing: Promise<void> | undefined

  /** @throws TypeError when `redis` or an option is not what it should be. */
  constructor(redis: RedisSource, options: ConnectionOptions = {}) {
    Object.defineProperty(this, BRAND, { value: true })
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
    this.#gate = new CommandGate(client, owned, this.clock, () => warnOfEviction(client))
    this.#subscriber = new Subscriber(
      () => subscriberFor(client),
      [this.inboxChannel, this.broadcastChannel],
      {
        message: (channel, message) => this.#message(channel, message),
        up: () => this.#notify((listener) => listener.up()),
        down: () => this.#notify((listener) => listener.down()),
      },
      this.clock,
    )
  }

  /** Whether it sends its commands by this client. */
  usesClient(client: unknown): boolean {
    return !this.#owned && client === this.#client
  }

  /** Whether commands can be sent. */
  get connected(): boolean {
    return this.#client.status === 'ready'
  }

  /** Whether messages arrive. */
  get subscribed(): boolean {
    return this.#subscriber.up
  }

  /** Why nothing works, or no messages arrive, as far as is known. */
  get lastError(): Error | undefined {
    return this.#gate.lastError ?? this.#subscriber.lastError
  }

  /** Commands that wait for Redis, sent or not. */
  get pending(): number {
    return this.#gate.pending
  }

  /**
   * Asks Redis, and calls back exactly once, by `within` ms; as long as Redis answers others, by five times that. In the
   * context of no call: what is connected, batched or armed for one call serves others as well.
   */
  send(request: Request, within: number, asker: ReplyHandler): void {
    rootContext.run(() => {
      if (!this.#opened) this.#open()
      this.#gate.send(request, within, asker)
    })
  }

  /** The same as a promise. Rejects with UnavailableError, OverloadedError or ClosedError. */
  call(request: Request, within: number): Promise<unknown> {
    return new Promise((resolve, reject) => this.send(request, within, new ReplyCallbacks(resolve, reject)))
  }

  /** Warns once, by `process.emitWarning`, if Redis is not reached: for what has no caller that could be told. */
  warnIfUnreachable(): void {
    this.#stopWarning ??= warnIfUnreachable(this.#client, this.clock)
  }

  /** The object of this connection for `purpose`, made for its first user. Each leaves by {@link releaseShared}. */
  acquireShared<T>(purpose: unknown, make: () => T): T {
    const shared = this.#shared.get(purpose) ?? { object: make(), users: 0 }
    this.#shared.set(purpose, shared)
    shared.users++
    return shared.object as T
  }

  /** A user of the object leaves. Whether it was the last one: then it is nobody's any more. */
  releaseShared(purpose: unknown): boolean {
    const shared = this.#shared.get(purpose)
    if (shared && --shared.users > 0) return false
    return this.#shared.delete(purpose)
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
    else this.#notify((listener) => listener.broadcast(message))
  }

  #notify(tell: (listener: ConnectionListener) => void): void {
    for (const listener of this.#listeners) tell(listener)
  }

  /** Ends the subscription, then the command client if it is ours. Close the layers on it first. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stopWarning?.()
    this.#gate.close()
    this.#subscriber.close()
    if (this.#owned) this.#client.disconnect()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Connections on clients of the user, and how many layers use them: one subscription serves all that share a client. */
const borrowed = new WeakMap<object, { connection: Connection; users: number }>()

/** What a layer was told of where it works. */
export interface BackendOptions {
  redis?: RedisSource | Connection | null | undefined
  store?: unknown
  clock?: Clock | undefined
}

/**
 * The connection that the option `redis` of a layer stands for, and how the layer lets go of it; undefined when it works
 * within this process. A Connection stays its maker's; layers on one client share one, which ends with the last of them.
 * @throws TypeError when `redis` is not what it should be.
 */
export function connectionFor(
  options: BackendOptions,
  layer: string,
): { connection: Connection; leave: () => Promise<void> } | undefined {
  const { redis, store, clock } = options
  if (clock !== undefined && (store !== undefined || redis instanceof Connection))
    throw new TypeError(
      'Expected `clock` to be an option of the store or Connection that is given, not beside it',
    )
  if (redis === undefined && store === undefined && Object.hasOwn(options, 'redis')) {
    warnOnce(
      'SOLOFLIGHT_NO_REDIS',
      `The option \`redis\` of a ${layer} is undefined: it works within this process alone. Is an environment variable missing? If this is meant, pass \`redis: null\`, or leave the option out.`,
    )
  }
  if (redis === undefined || redis === null) return undefined
  if (store !== undefined) throw new TypeError('Expected either `redis` or `store`, got both')
  if (redis instanceof Connection) return { connection: redis, leave: async () => {} }
  const lent = typeof redis === 'object' && clock === undefined ? borrowed.get(redis) : undefined
  const user = lent ?? { connection: new Connection(redis, { clock }), users: 0 }
  user.users++
  if (typeof redis === 'object' && clock === undefined && user.connection.usesClient(redis))
    borrowed.set(redis, user)
  const leave = async () => {
    if (--user.users > 0) return
    if (typeof redis === 'object' && borrowed.get(redis) === user) borrowed.delete(redis)
    await user.connection.close()
  }
  return { connection: user.connection, leave }
}
