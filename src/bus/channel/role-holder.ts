import pDefer from 'p-defer'
import { ClosedError } from '../../errors.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { BusContext } from '../context.ts'
import { Attachment } from '../queue/attachment.ts'
import { Consuming } from '../queue/consuming.ts'
import { EventReceiver } from '../queue/receivers.ts'
import type { Incoming } from '../store/store.ts'
import type { ResolvedChannelOptions } from './options.ts'
import { Outbound } from './outbound.ts'
import { Presence } from './presence.ts'

/** Receives the events of the holder of a role. */
export interface RoleListener {
  /** This process has its role, or has it no more. */
  onRole(has: boolean): void
  onRemoteConnect(): void
  onRemoteDisconnect(): void
  onMessage(message: Incoming): void
  /** This process stood still for longer than its lease, or somebody has closed the queue of its role. */
  onLost(): void
}

type State = 'attaching' | 'waiting' | 'holding' | 'closed'

const TRANSITIONS: Transitions<State> = {
  attaching: ['waiting', 'closed'],
  waiting: ['holding', 'closed'],
  holding: ['holding', 'waiting', 'closed'],
  closed: [],
}

/**
 * Takes a role of a channel, and holds it, once: receives from the queue of that role, of which it is the exclusive consumer, and
 * sends to that of the peer.
 *
 * | event                                | attaching | waiting | holding | closed |
 * | ------------------------------------ | --------- | ------- | ------- | ------ |
 * | both queues are attached             | waiting   |         |         |        |
 * | it is the consumer that receives     |           | holding | holding |        |
 * | it is so no more: its lease was over |           |         | waiting |        |
 * | `close`                              | closed    | closed  | closed  |        |
 */
export class RoleHolder {
  readonly #options: ResolvedChannelOptions
  readonly #listener: RoleListener
  readonly #inbound: Attachment
  readonly #consuming: Consuming
  readonly #outbound: Outbound
  readonly #presence: Presence
  /** Fulfilled when it holds the role for the first time. */
  readonly #taken = pDefer<void>()
  /** Settled when both queues are attached, or one of them cannot be. */
  #attaching: Promise<unknown> = Promise.resolve()
  #state: State = 'attaching'

  /** `local`, `remote`: the queues of the two roles. */
  constructor(
    local: string,
    remote: string,
    context: BusContext,
    options: ResolvedChannelOptions,
    listener: RoleListener,
  ) {
    this.#options = options
    this.#listener = listener
    this.#taken.promise.catch(() => {})
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
        if (this.#state === 'holding') this.#presence.look()
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
    if (this.#state === 'closed') return this.#taken.promise
    this.#moveTo('waiting')
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
    await this.#taken.promise
  }

  #moveTo(state: State): void {
    assertTransition('role holder', TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** `fence`: 0: it is not the consumer that receives. */
  #onFence(fence: number): void {
    if (this.#state === 'closed') return
    const holds = fence !== 0
    this.#moveTo(holds ? 'holding' : 'waiting')
    this.#listener.onRole(holds)
    // It learns of the peer with its role.
    if (!holds) return this.#presence.reset()
    this.#taken.resolve()
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
    this.#moveTo('closed')
    this.#presence.close()
    this.#taken.reject(new ClosedError('The channel was disconnected'))
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
