import type { Persisted } from '../persisted/persisted-methods.ts'
import type { PubsubOptions } from '../pubsub/options.ts'
import { Emitter } from './emitter.ts'
import { Link } from './link.ts'
import { checkUrl, type RemoteBusOptions, resolveRemoteOptions } from './options.ts'
import { RemoteQueue } from './queue/remote-queue.ts'
import { RemoteChannel } from './remote-channel.ts'
import { persistRemotely } from './remote-object.ts'
import { RemotePubsub } from './remote-pubsub.ts'
import { checkRemoteName } from './wire.ts'

/** Events of a RemoteBus. */
export interface RemoteBusEvents {
  /** Connected to the gateway: for the first time, or again. */
  online: []
  /** No longer connected. */
  offline: []
}

/**
 * The bus of a gateway, over one WebSocket: in browsers, and for programs that do not reach Redis. Its queues, channels, topics
 * and objects are used as those of a Bus. They are restored after an outage, also at another gateway.
 *
 * Messages are JSON. The scopes of the token decide which calls are allowed.
 *
 * @example
 * const bus = new RemoteBus('wss://jobs.example.com/ws', { token })
 * const prices = bus.pubsub('prices')
 * prices.on('message', (price) => show(price))
 * await prices.subscribe()
 */
export class RemoteBus extends Emitter<RemoteBusEvents> implements AsyncDisposable {
  readonly #link: Link

  /** Does not connect: the first use does. @throws TypeError if the URL or an option is invalid. */
  constructor(url: string, options: RemoteBusOptions = {}) {
    super()
    checkUrl(url)
    this.#link = new Link(
      { url, ...resolveRemoteOptions(options) },
      { onOnline: () => this.emit('online'), onOffline: () => this.emit('offline') },
    )
  }

  /** Resolves when it is connected. @throws UnavailableError after `unavailableAfter` ms; ClosedError. */
  async connect(): Promise<void> {
    await this.#link.call('ping', '', {})
  }

  isOnline(): boolean {
    return this.#link.isOnline
  }

  /** A topic of the bus. Makes no request. @throws TypeError */
  pubsub<M = unknown>(name: string, options: PubsubOptions = {}): RemotePubsub<M> {
    checkRemoteName('name', name)
    return new RemotePubsub<M>(name, options, this.#link)
  }

  /** A queue of the bus. Makes no request. @throws TypeError */
  queue<M = unknown>(name: string): RemoteQueue<M> {
    checkRemoteName('name', name)
    return new RemoteQueue<M>(name, this.#link)
  }

  /** A channel between two roles: see Bus. Makes no request. @throws TypeError */
  channel<In = unknown, Out = unknown>(
    name: string,
    local = 'local',
    remote = 'remote',
  ): RemoteChannel<In, Out> {
    checkRemoteName('name', name)
    checkRemoteName('local', local)
    checkRemoteName('remote', remote)
    if (local === remote) throw new TypeError('Expected `local` and `remote` to be different roles')
    return new RemoteChannel<In, Out>(name, local, remote, this.#link)
  }

  /** Gives an object the methods `save`, `load`, `persist` and `unpersist`: see Bus. Makes no request. @throws TypeError */
  persistify<T extends object>(
    name: string,
    object: T,
    properties: readonly (keyof T & string)[],
  ): Persisted<T> {
    checkRemoteName('name', name)
    return persistRemotely(name, object, properties, this.#link)
  }

  /**
   * Ends the connection: the gateway detaches all. Waiting calls are rejected with ClosedError. The object cannot be used again.
   */
  async disconnect(): Promise<void> {
    this.#link.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.disconnect()
  }
}
