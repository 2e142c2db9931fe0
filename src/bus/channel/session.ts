import pDefer from 'p-defer'
import { ClosedError } from '../../errors.ts'
import type { BusContext } from '../context.ts'
import { Attachment } from '../queue/attachment.ts'
import { Consuming } from '../queue/consuming.ts'
import { EventReceiver } from '../queue/receivers.ts'
import type { Incoming } from '../store/store.ts'
import type { ResolvedChannelOptions } from './options.ts'
import { Outbound } from './outbound.ts'
import { Presence } from './presence.ts'

/** Receives the events of a session. */
export interface SessionListener {
  /** This process has its role, or has it no more. */
  onRole(has: boolean): void
  onRemoteConnect(): void
  onRemoteDisconnect(): void
  onMessage(message: Incoming): void
  /** This process stood still for longer than its lease, or somebody has closed the queue of its role. */
  onLost(): void
}

/** One stay in a role of a channel: receives from the queue of that role, and sends to that of the peer. */
export class Session {
  readonly #options: ResolvedChannelOptions
  readonly #listener: SessionListener
  readonly #inbound: Attachment
  readonly #consuming: Consuming
  readonly #outbound: Outbound
  readonly #presence: Presence
  readonly #hasRole = pDefer<void>()
  /** Settled when both queues are attached, or one of them cannot be. */
  #attaching: Promise<unknown> = Promise.resolve()
  #isClosed = false
  #hasRoleNow = false

  /** `local`, `remote`: the queues of the two roles. */
  constructor(
    local: string,
    remote: string,
    context: BusContext,
    options: ResolvedChannelOptions,
    listener: SessionListener,
  ) {
    this.#options = options
    this.#listener = listener
    this.#hasRole.promise.catch(() => {})
    this.#inbound = new Attachment(local, context, {
      onSignal: () => this.#consuming.resume(),
      onUp: () => this.#consuming.resume(),
      onRemade: () => this.#consuming.onRemade(),
      onLost: () => {
        this.#consuming.abandon(undefined)
        listener.onLost()
      },
    })
    this.#consuming = new Consuming(local, context, this.#inbound, () => {})
    this.#outbound = new Outbound(remote, context, {
      onHolder: () => {
        if (this.#hasRoleNow) this.#presence.look()
      },
      onLost: (closed) => {
        this.#presence.close()
        // If the peer has ended the channel, it says so in its last message.
        if (!closed) listener.onLost()
      },
    })
    this.#presence = new Presence({
      clock: context.clock,
      inspect: () => this.#outbound.inspect(),
      onCome: () => listener.onRemoteConnect(),
      onGo: () => listener.onRemoteDisconnect(),
    })
  }

  /** Resolves when this process has its role. @throws UnavailableError, OverloadedError, ClosedError if it left before. */
  async open(): Promise<void> {
    const { ttl, maxsize, throttle } = this.#options
    const attaching = [this.#inbound.attach({ ttl, maxsize }), this.#outbound.attach({ ttl, maxsize })]
    this.#attaching = Promise.allSettled(attaching)
    await this.#attaching
    await Promise.all(attaching)
    if (this.#isClosed) return this.#hasRole.promise
    const receiver = new EventReceiver(
      {
        receive: (message) => this.#listener.onMessage(message),
        onFence: (fence) => this.#onFence(fence),
        resume: () => this.#consuming.resume(),
      },
      throttle,
    )
    const { lease, reliable, prefetch } = this.#options
    const terms = { max: Number.POSITIVE_INFINITY, remove: true, index: 0, last: 0 }
    this.#consuming.begin({ ...terms, exclusive: true, lease, reliable, prefetch }, receiver, () => {})
    await this.#hasRole.promise
  }

  #onFence(fence: number): void {
    this.#hasRoleNow = fence !== 0
    this.#listener.onRole(this.#hasRoleNow)
    // It learns of the peer with its role.
    if (!this.#hasRoleNow) return this.#presence.reset()
    this.#hasRole.resolve()
    this.#presence.look()
  }

  /** @throws ClosedError if the peer has ended the channel; QueueFullError, UnavailableError, OverloadedError. */
  send(bytes: Buffer): Promise<number> {
    return this.#outbound.send(bytes, 'user')
  }

  /** @throws LeaseLostError, UnavailableError, OverloadedError, ClosedError */
  ack(id: number): Promise<void> {
    return this.#consuming.ack(id)
  }

  /** Acknowledges this message alone. */
  drop(id: number): void {
    this.#consuming.drop(id)
  }

  /** Leaves the role. Never rejects. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#presence.close()
    this.#hasRole.reject(new ClosedError('The channel was disconnected'))
    const stopped = this.#consuming.stop().catch(() => {})
    await this.#attaching
    await Promise.all([stopped, this.#outbound.detach()])
    await this.#inbound.detach()
  }

  /** Tells the peer, in order after the messages, that the channel is over; then removes the queue of this role. */
  async end(): Promise<void> {
    this.#presence.close()
    try {
      await this.#outbound.send(Buffer.alloc(0), 'end')
    } catch (error) {
      // The peer has received it, and the reply was lost; or it has ended the channel as well.
      if (!(error instanceof ClosedError)) throw error
    } finally {
      await this.remove()
    }
  }

  /** Removes the queue of this role, and leaves. Never rejects. */
  async remove(): Promise<void> {
    this.#presence.close()
    await this.#inbound.removeQueue().catch(() => {})
    await this.close()
  }
}
