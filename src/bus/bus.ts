import { AlreadyAttachedError, ClosedError } from '../errors.ts'
import { ContextEmitter } from '../kernel/hooks.ts'
import { checkTimeout } from '../kernel/options.ts'
import type { Connection } from '../kernel/redis/connection.ts'
import { BusService } from './bus-service.ts'
import { AttachedQueues } from './census.ts'
import { Channel } from './channel/channel.ts'
import type { BusContext } from './context.ts'
import { BusInstances } from './instances.ts'
import { checkName } from './names.ts'
import { type BusOptions, type ResolvedBusOptions, resolveBusOptions } from './options.ts'
import { persistify } from './persisted/persisted.ts'
import type { Persisted } from './persisted/persisted-methods.ts'
import type { PubsubOptions } from './pubsub/options.ts'
import { Pubsub } from './pubsub/pubsub.ts'
import { Queue } from './queue/queue.ts'
import { RemoteBus, type RemoteBusOptions } from './remote/index.ts'
import { ServiceEngines } from './service-engines.ts'
import { instancesOf } from './sources.ts'
import { MemoryBus } from './store/memory-store.ts'
import { RedisInstance } from './store/redis/redis-instance.ts'
import type { Instance } from './store/store.ts'

/** Events of a Bus. An instance is named by its address. */
export interface BusEvents {
  /** All instances are connected: for the first time, or after none was. */
  online: []
  /** No instance is connected any longer, or the bus was disconnected. */
  offline: []
  /** An instance is no longer connected, or was not in time. The names on it cannot be used. */
  degraded: [instance: string]
  /** It is connected again. */
  restored: [instance: string]
}

/** How long `disconnect` waits by default, ms. */
const DEFAULT_GRACE = 5_000

/** The connections of a bus, and what stands on them: made anew by a `connect` after a disconnect. */
interface Connections {
  readonly instances: BusInstances
  readonly engines: ServiceEngines
  /** Ends the answers to a census. Undefined until the instances are used. */
  stopContributing: (() => void)[] | undefined
}

/**
 * Message queues, channels, pub/sub, persisted objects and services over one or several Redis. A name lives on the instance where
 * it was made. If an instance is down, names on others are not affected. Without the option `redis`, the bus works within this
 * process.
 *
 * `connect` is optional: the first use connects. An instance is named by its address, without credentials: `host:port/db`,
 * `path/db`, with Sentinel `name/db`, of a cluster its nodes.
 *
 * @example
 * const bus = new Bus({ redis: ['redis://one:6379', 'redis://two:6379'] })
 * await bus.connect()
 */
export class Bus extends ContextEmitter<BusEvents> implements AsyncDisposable {
  readonly #given: BusOptions
  readonly #options: ResolvedBusOptions
  /** Undefined with Redis. */
  readonly #memory: MemoryBus | undefined
  readonly #context: BusContext
  /** What is called by a disconnect. */
  readonly #closers = new Set<() => Promise<void>>()
  readonly #attachedQueues = new AttachedQueues()
  #connections: Connections
  #isClosed = false
  /** The `connect` that holds: it has resolved, or may do so. */
  #connecting: object | undefined
  #disconnecting: Promise<void> | undefined

  /**
   * The bus of a gateway, over its WebSocket, without a Redis of its own: see RemoteBus, and `soloflight/bus/remote` for
   * browsers. Does not connect.
   * @throws TypeError if the URL or an option is invalid; if there is no global WebSocket, and none is given.
   */
  static remote(url: string, options: RemoteBusOptions = {}): RemoteBus {
    return new RemoteBus(url, options)
  }

  /** Does not connect. @throws TypeError if an option is invalid. */
  constructor(given: BusOptions = {}) {
    super()
    this.#given = given
    this.#options = resolveBusOptions(given)
    const isInMemory = given.redis === undefined || given.redis === null
    this.#memory = isInMemory ? (given.store ?? new MemoryBus({ clock: given.clock })) : undefined
    this.#connections = this.#newConnections()
    const { unavailableAfter, maxMessage, codec } = this.#options
    this.#context = {
      clock: this.#connections.instances.clock,
      codec,
      maxMessage,
      within: unavailableAfter,
      places: {
        find: async (kind, name) => this.#open().places.find(kind, name),
        place: async (kind, name, use) => this.#open().places.place(kind, name, use),
        forget: (kind, name) => this.#connections.instances.places.forget(kind, name),
      },
      assertOpen: () => this.#assertOpen(),
      onDisconnect: (close) => {
        this.#closers.add(close)
        return () => this.#closers.delete(close)
      },
    }
  }

  #newConnections(): Connections {
    const sources = instancesOf(this.#given, this.#options.prefix)
    const all = sources ?? { making: [(this.#memory as MemoryBus).connect()], existingOnly: [] }
    const instances = new BusInstances(all, this.#options.unavailableAfter, {
      onOnline: () => this.emit('online'),
      onOffline: () => this.emit('offline'),
      onDegraded: (instance) => this.emit('degraded', instance),
      onRestored: (instance) => this.emit('restored', instance),
    })
    const engines = new ServiceEngines(this.#options, this.#memory)
    return { instances, engines, stopContributing: undefined }
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new ClosedError('The bus was disconnected')
  }

  /** The instances, connected if they were not. @throws ClosedError */
  #open(): BusInstances {
    this.#assertOpen()
    const { instances } = this.#connections
    instances.open()
    this.#connections.stopContributing ??= instances.all.map((instance) => this.#contribute(instance))
    return instances
  }

  #contribute(instance: Instance): () => void {
    const census =
      instance instanceof RedisInstance ? instance.connection : (this.#memory as MemoryBus).census
    return this.#attachedQueues.contribute(census, instance, this.#options.prefix)
  }

  /**
   * Resolves when all instances are connected. After a rejection it keeps trying, and the event `online` comes later. After a
   * disconnect, it connects again.
   * @throws UnavailableError, which names the instances, after `unavailableAfter` ms; AlreadyAttachedError if it was called
   * before; ClosedError if the bus is disconnected meanwhile.
   */
  async connect(): Promise<void> {
    if (this.#connecting) throw new AlreadyAttachedError('The bus is already connected')
    const attempt = {}
    this.#connecting = attempt
    try {
      await this.#disconnecting
      if (this.#connecting !== attempt) this.#assertOpen()
      if (this.#isClosed) {
        this.#connections = this.#newConnections()
        this.#isClosed = false
      }
      await this.#open().whenOnline()
    } catch (error) {
      if (this.#connecting === attempt) this.#connecting = undefined
      throw error
    }
  }

  /** Whether the last event was `online`, not `offline`; of one instance, whether it is connected. */
  isOnline(instance?: string): boolean {
    return !this.#isClosed && this.#connections.instances.isOnline(instance)
  }

  /**
   * A queue of messages. Makes no request.
   * @throws TypeError if the name is not well-formed text of 1 to 256 characters, as the next ones.
   */
  queue<M = unknown>(name: string): Queue<M> {
    checkName('name', name)
    const queue = new Queue<M>(name, this.#context)
    const { clock, places } = this.#context
    this.#attachedQueues.follow(
      queue,
      () => clock.now(),
      async () => (await places.find('queue', name))?.instance,
    )
    return queue
  }

  /**
   * A channel between two roles: `connect` takes the role `local`, `listen` the role `remote`. Makes no request.
   * @throws TypeError if a name is not well-formed text of 1 to 256 characters, or the roles are the same.
   */
  channel<In = unknown, Out = unknown>(name: string, local = 'local', remote = 'remote'): Channel<In, Out> {
    checkName('name', name)
    checkName('local', local)
    checkName('remote', remote)
    if (local === remote) throw new TypeError('Expected `local` and `remote` to be different roles')
    return new Channel<In, Out>(name, local, remote, this.#context)
  }

  /**
   * A topic: its messages reach all subscribers. Makes no request.
   * @throws TypeError if the name is not well-formed text of 1 to 256 characters, or an option is invalid.
   */
  pubsub<M = unknown>(name: string, options: PubsubOptions = {}): Pubsub<M> {
    checkName('name', name)
    return new Pubsub<M>(name, options, this.#context)
  }

  /**
   * Gives an object the methods `save`, `load`, `persist` and `unpersist`, for the given properties. Makes no request.
   * @throws TypeError if the name is not well-formed text of 1 to 256 characters, or a property cannot be persisted.
   */
  persistify<T extends object>(
    name: string,
    object: T,
    properties: readonly (keyof T & string)[],
  ): Persisted<T> {
    return persistify(name, object, properties, this.#context)
  }

  /**
   * A service: requests and replies. Makes no request.
   * @throws TypeError if the name is not well-formed text of 1 to 256 characters.
   */
  service<Data = unknown, Result = unknown>(name: string): BusService<Data, Result> {
    checkName('name', name)
    const engine = () => {
      const { places } = this.#open()
      return this.#connections.engines.at(places.bestFor(name).instance)
    }
    const { clock, onDisconnect } = this.#context
    return new BusService<Data, Result>(name, { clock, onDisconnect, engine })
  }

  /**
   * The connection to the instance where the queue of this name is, or would be made. It is closed by a disconnect, unless it
   * was given to the bus.
   * @throws TypeError without Redis; UnavailableError, ClosedError.
   */
  async connection(name: string): Promise<Connection> {
    checkName('name', name)
    const { places } = this.#open()
    const { instance } = (await places.find('queue', name)) ?? places.bestFor(name)
    if (instance instanceof RedisInstance) return instance.connection
    throw new TypeError('Expected a bus with `redis`: one in memory has no connection')
  }

  /**
   * Detaches all queues, channels, topics and services, up to `grace` ms, and disconnects. Waiting calls are rejected with
   * ClosedError. After a further `connect`, attach queues and others again. Never rejects.
   * @throws TypeError if `grace` is not a duration.
   */
  disconnect({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkTimeout('grace', grace)
    this.#connecting = undefined
    if (this.#isClosed) return this.#disconnecting ?? Promise.resolve()
    this.#isClosed = true
    const disconnecting = this.#disconnect(grace).finally(() => {
      this.#disconnecting = undefined
    })
    this.#disconnecting = disconnecting
    return disconnecting
  }

  async #disconnect(grace: number): Promise<void> {
    const { instances, engines, stopContributing = [] } = this.#connections
    await this.#closeAll(grace)
    await engines.close(0)
    for (const stop of stopContributing) stop()
    await instances.close()
  }

  /** Closes everything on the bus. Resolves after `grace` ms at the latest. */
  async #closeAll(grace: number): Promise<void> {
    const closers = [...this.#closers]
    this.#closers.clear()
    await new Promise<void>((resolve) => {
      const { clock } = this.#context
      const timer = Number.isFinite(grace) ? clock.after(grace, resolve) : undefined
      void Promise.all(closers.map((close) => close())).then(() => {
        timer?.cancel()
        resolve()
      })
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.disconnect()
  }
}
