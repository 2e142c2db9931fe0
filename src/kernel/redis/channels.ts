import type { UnavailableError } from '../../errors.ts'
import { assertTransition, TransientMap, type Transitions } from '../collections.ts'
import { atEndOfTurn, rootContext } from '../time.ts'
import type { RedisServerClient } from './client.ts'
import { isErrorReply, OUTAGE_REPLY, refusedError } from './diagnosis.ts'

/** Most channels of one SUBSCRIBE or UNSUBSCRIBE. It blocks the server, so it must be short. */
const MAX_CHANNELS = 1000

/**
 * Receives the events of one channel, in the root async context and never during the call of `subscribe`. `up` and `down`
 * alternate, beginning with `up`. Its methods must not throw.
 */
export interface ChannelListener {
  /** A message, between `up` and `down`. */
  message(message: Buffer): void
  /** The channel is subscribed from now on. Messages may have been missed before. */
  up(): void
  /** The subscription is lost. Messages may have been missed for up to 2 s. */
  down(): void
  /**
   * Redis refuses the channel, normally by its ACL. It is tried again at each reconnection. Called once before the next `up`,
   * however often it is refused.
   */
  refused(error: UnavailableError): void
}

/** One listener of one channel. `waiting`: for `up`. */
class ChannelSubscription {
  #state: 'waiting' | 'refused' | 'up' | 'ended' = 'waiting'
  readonly #listener: ChannelListener

  constructor(listener: ChannelListener) {
    this.#listener = listener
  }

  deliver(message: Buffer): void {
    if (this.#state === 'up') this.#listener.message(message)
  }

  up(): void {
    if (this.#state !== 'waiting' && this.#state !== 'refused') return
    this.#state = 'up'
    this.#listener.up()
  }

  down(): void {
    if (this.#state !== 'up') return
    this.#state = 'waiting'
    this.#listener.down()
  }

  refuse(error: UnavailableError): void {
    if (this.#state !== 'waiting') return
    this.#state = 'refused'
    this.#listener.refused(error)
  }

  end(): void {
    this.#state = 'ended'
  }
}

/**
 * absent       not subscribed
 * subscribing  a SUBSCRIBE awaits its reply
 * subscribed   messages arrive
 * refused      the SUBSCRIBE got an error reply; it is sent again on the next connection
 *
 * | event                            | absent      | subscribing          | subscribed | refused |
 * | -------------------------------- | ----------- | -------------------- | ---------- | ------- |
 * | SUBSCRIBE is sent                | subscribing |                      |            |         |
 * | its reply                        |             | subscribed           |            |         |
 * | its error reply                  |             | refused; subscribing |            |         |
 * | UNSUBSCRIBE is sent              |             | absent               | absent     |         |
 * | the connection is lost           | absent      | absent               | absent     | absent  |
 *
 * Redis refuses a SUBSCRIBE as a whole: each half of several channels is then sent again by itself. Commands take effect in
 * their order, so the reply to UNSUBSCRIBE is not awaited. Each SUBSCRIBE has a `subscribing` object of its own: a channel in
 * another state ignores its reply.
 */
type ChannelState =
  | { readonly kind: 'absent' | 'subscribing' | 'subscribed' }
  | { readonly kind: 'refused'; readonly error: UnavailableError }

const CHANNEL_TRANSITIONS: Transitions<ChannelState['kind']> = {
  absent: ['subscribing', 'absent'],
  subscribing: ['subscribed', 'refused', 'subscribing', 'absent'],
  subscribed: ['absent'],
  refused: ['absent'],
}

/** A channel on the present connection. It is forgotten when it is absent and nobody wants it. */
class Channel {
  readonly name: string
  readonly subscriptions = new Set<ChannelSubscription>()
  #state: ChannelState = { kind: 'absent' }

  constructor(name: string) {
    this.name = name
  }

  get state(): ChannelState {
    return this.#state
  }

  get wanted(): boolean {
    return this.subscriptions.size > 0
  }

  enter(state: ChannelState): void {
    assertTransition('channel', CHANNEL_TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /** Tells those who do not know it yet that the channel is subscribed or refused. */
  notify(): void {
    const state = this.#state
    for (const subscription of [...this.subscriptions]) {
      if (state.kind === 'subscribed') subscription.up()
      else if (state.kind === 'refused') subscription.refuse(state.error)
    }
  }
}

/**
 * Channels that layers add to the subscription of a process, and remove again. The changes of one turn are sent together, at
 * its end. After a reconnection all channels are subscribed again, in the same command as the inbox unless they are too many.
 */
export class Channels {
  readonly #channels = new TransientMap<string, Channel>()
  /** Channels that got or lost a listener in this turn. */
  #changed = new Set<Channel>()
  /** The client of the subscription, while that is established. Written by {@link onUp} and {@link onDown}. */
  #client: RedisServerClient | undefined
  readonly #onFailure: (client: RedisServerClient, error: Error) => void

  /** `onFailure`: a SUBSCRIBE failed, and not because its channels are refused. */
  constructor(onFailure: (client: RedisServerClient, error: Error) => void) {
    this.#onFailure = onFailure
  }

  /** Adds a listener to a channel. The returned function removes it. */
  subscribe(name: string, listener: ChannelListener): () => void {
    const channel = this.#channels.get(name) ?? new Channel(name)
    this.#channels.set(name, channel)
    const subscription = new ChannelSubscription(listener)
    channel.subscriptions.add(subscription)
    this.#changeLater(channel)
    return () => {
      subscription.end()
      if (channel.subscriptions.delete(subscription)) this.#changeLater(channel)
    }
  }

  #changeLater(channel: Channel): void {
    const isFirst = this.#changed.size === 0
    this.#changed.add(channel)
    if (!isFirst) return
    atEndOfTurn(() => {
      const changed = [...this.#changed]
      this.#changed = new Set()
      // The end of the turn may have been brought forward by user code.
      rootContext.run(() => this.#update(changed))
    })
  }

  /** Passes a message on to the listeners of its channel. */
  deliver(name: string, message: Buffer): void {
    const channel = this.#channels.get(name)
    if (!channel) return
    for (const subscription of channel.subscriptions) subscription.deliver(message)
  }

  /**
   * Subscribes to the channels `own` and, in the same command, to those of layers. Resolves when the former are
   * subscribed, even if one of the latter is refused. Call {@link onUp} then. Rejects with the error of the client.
   */
  async connect(client: RedisServerClient, own: readonly string[]): Promise<void> {
    const first = [...this.#channels.values()].slice(0, MAX_CHANNELS)
    const subscribing: ChannelState = { kind: 'subscribing' }
    for (const channel of first) channel.enter(subscribing)
    const settle = (kind: 'subscribed' | 'absent') => {
      for (const channel of first) if (channel.state === subscribing) channel.enter({ kind })
    }
    try {
      await client.subscribe(...own, ...namesOf(first))
      settle('subscribed')
    } catch (error) {
      if (first.length === 0 || !isRefusal(error)) throw error
      // Later, by themselves.
      settle('absent')
      await client.subscribe(...own)
    }
  }

  /** The subscription is established. */
  onUp(client: RedisServerClient): void {
    this.#client = client
    this.#update([...this.#channels.values()])
  }

  /** The connection is lost, established or not. */
  onDown(): void {
    this.#client = undefined
    const channels = [...this.#channels.values()]
    for (const channel of channels) channel.enter({ kind: 'absent' })
    this.#update(channels)
    for (const { subscriptions } of channels) {
      for (const subscription of [...subscriptions]) subscription.down()
    }
  }

  /** Ends all events. */
  close(): void {
    this.#client = undefined
    for (const { subscriptions } of this.#channels.values()) {
      for (const subscription of subscriptions) subscription.end()
    }
  }

  /** Sends what makes these channels subscribed if they are wanted, and only then. Notifies their listeners. */
  #update(channels: readonly Channel[]): void {
    const client = this.#client
    const unwanted = channels.filter(({ wanted }) => !wanted)
    if (client) {
      const removed = unwanted.filter(
        ({ state: { kind } }) => kind === 'subscribing' || kind === 'subscribed',
      )
      // The server may refuse to unsubscribe. Messages without a listener are dropped.
      for (const chunk of chunks(removed)) client.unsubscribe(...namesOf(chunk)).catch(() => {})
      for (const channel of unwanted) channel.enter({ kind: 'absent' })
      const added = channels.filter(({ wanted, state }) => wanted && state.kind === 'absent')
      for (const chunk of chunks(added)) this.#subscribe(client, chunk)
    }
    for (const channel of unwanted) this.#forget(channel)
    for (const channel of channels) channel.notify()
  }

  #forget(channel: Channel): void {
    const { name, state } = channel
    if (state.kind === 'absent' && this.#channels.get(name) === channel) this.#channels.delete(name)
  }

  #subscribe(client: RedisServerClient, channels: readonly Channel[]): void {
    const subscribing: ChannelState = { kind: 'subscribing' }
    for (const channel of channels) channel.enter(subscribing)
    const remaining = () => channels.filter(({ state }) => state === subscribing)
    client.subscribe(...namesOf(channels)).then(
      () => {
        const subscribed = remaining()
        for (const channel of subscribed) channel.enter({ kind: 'subscribed' })
        for (const channel of subscribed) channel.notify()
      },
      (error: Error) => {
        const failed = remaining()
        if (failed.length === 0) return
        if (!isRefusal(error)) return this.#onFailure(client, error)
        if (channels.length > 1) {
          for (const half of chunks(failed, Math.ceil(failed.length / 2))) this.#subscribe(client, half)
          return
        }
        for (const channel of failed) {
          channel.enter({ kind: 'refused', error: refusedError(error) })
          channel.notify()
        }
      },
    )
  }
}

function namesOf(channels: readonly Channel[]): string[] {
  return channels.map(({ name }) => name)
}

function chunks<T>(items: readonly T[], size = MAX_CHANNELS): T[][] {
  const count = Math.ceil(items.length / size)
  return Array.from({ length: count }, (_, at) => items.slice(at * size, (at + 1) * size))
}

/** Whether Redis refuses a SUBSCRIBE, and would refuse it again: it does serve commands. */
function isRefusal(error: unknown): boolean {
  return isErrorReply(error) && !OUTAGE_REPLY.test(error.message)
}
