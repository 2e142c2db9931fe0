import { emit } from '../telemetry.ts'
import type { Clock, Timer } from '../time/clock.ts'
import { nextTurn } from '../time/timers.ts'
import { isErrorReply, type RedisServerClient, safeCopy } from './client.ts'

/** Time from a PING's reply to the next PING … */
const PING_INTERVAL_MS = 700
/** … and for its reply: a lost connection is detected within two seconds. */
const PING_TIMEOUT_MS = 1000
/** Limit for connecting and subscribing. */
const CONNECT_TIMEOUT_MS = 2000
/** Delay before connecting again: doubles with each attempt, up to the maximum. */
const MIN_RETRY_DELAY_MS = 20
const MAX_RETRY_DELAY_MS = 1000

/** Receives the events of a subscriber. */
export interface SubscriberEvents {
  message(channel: string, message: Buffer): void
  /** Subscribed to all channels from now on. */
  up(): void
  /** The subscription is lost. Messages may have been missed for up to 2 s. */
  down(): void
}

/**
 * idle        not opened yet
 * connecting  `client` connects and subscribes; `timer` limits that
 * subscribed  messages arrive; `timer` waits for the next PING
 * pinging     messages arrive; `timer` limits the reply to a PING
 * retrying    `timer` waits for the next attempt
 * closed
 *
 * | event        | idle       | connecting | subscribed | pinging    | retrying   |
 * | ------------ | ---------- | ---------- | ---------- | ---------- | ---------- |
 * | open         | connecting |            |            |            |            |
 * | #onSubscribed|            | subscribed |            |            |            |
 * | timer        |            | retrying   | pinging    | retrying   | connecting |
 * | PING's reply |            |            |            | subscribed |            |
 * | #onFailure   |            | retrying   | retrying   | retrying   |            |
 * | close        | closed     | closed     | closed     | closed     | closed     |
 *
 * A client belongs to one state after the other until it fails. Events of earlier clients are ignored.
 */
type SubscriberState =
  | { readonly kind: 'idle' | 'closed' }
  | {
      readonly kind: 'connecting' | 'subscribed' | 'pinging'
      readonly client: RedisServerClient
      readonly timer: Timer
    }
  | { readonly kind: 'retrying'; readonly timer: Timer }

/**
 * Keeps one subscription open: connects, subscribes and pings. When the client fails, is silent or is closed, it starts again
 * with a new client. The pings detect a black-holed connection, which causes no event.
 */
export class Subscriber {
  readonly #createClient: () => RedisServerClient | undefined
  readonly #channels: readonly string[]
  readonly #events: SubscriberEvents
  readonly #clock: Clock
  #state: SubscriberState = { kind: 'idle' }
  #retryDelay = MIN_RETRY_DELAY_MS
  #lastError: Error | undefined

  constructor(
    make: () => RedisServerClient | undefined,
    channels: readonly string[],
    events: SubscriberEvents,
    clock: Clock,
  ) {
    this.#createClient = make
    this.#channels = channels
    this.#events = events
    this.#clock = clock
  }

  /** Whether messages arrive. */
  get up(): boolean {
    return this.#state.kind === 'subscribed' || this.#state.kind === 'pinging'
  }

  /** Why the subscription failed; undefined while it is established. */
  get lastError(): Error | undefined {
    return this.#lastError
  }

  /** Starts connecting. */
  open(): void {
    if (this.#state.kind === 'idle') this.#connect()
  }

  #connect(): void {
    const client = this.#newClient()
    if (!client) return this.#retryLater()
    const fail = (error?: Error) => this.#onFailure(client, error)
    const timer = this.#clock.after(CONNECT_TIMEOUT_MS, () =>
      fail(new Error(`no subscription within ${CONNECT_TIMEOUT_MS} ms`)),
    )
    this.#state = { kind: 'connecting', client, timer }
    client.on('error', fail)
    client.on('end', () => fail())
    client.on('messageBuffer', (channel: Buffer, message: Buffer) => {
      if (this.#uses(client)) this.#events.message(channel.toString(), message)
    })
    client
      .connect()
      .then(() => client.subscribe(...this.#channels))
      .then(() => this.#onSubscribed(client), fail)
  }

  /** A new client; undefined if a cluster has no node, or the client of the user throws when it is duplicated. */
  #newClient(): RedisServerClient | undefined {
    try {
      return this.#createClient()
    } catch (error) {
      this.#lastError = safeCopy(error)
      return undefined
    }
  }

  /** Whether this is the present client. */
  #uses(client: RedisServerClient): boolean {
    return 'client' in this.#state && this.#state.client === client
  }

  #onSubscribed(client: RedisServerClient): void {
    if (!this.#uses(client)) return
    this.#retryDelay = MIN_RETRY_DELAY_MS
    this.#lastError = undefined
    this.#pingLater(client)
    emit('connection', { link: 'subscription', up: true })
    this.#events.up()
  }

  #pingLater(client: RedisServerClient): void {
    this.#stopTimer()
    const timer = this.#clock.after(PING_INTERVAL_MS, () => this.#ping(client), true)
    this.#state = { kind: 'subscribed', client, timer }
  }

  #ping(client: RedisServerClient): void {
    const onTimeout = () => {
      // After a blocked event loop, the reply may lie unread in the socket. It is read before the next turn.
      nextTurn(() => {
        if (this.#state === pinging)
          this.#onFailure(client, new Error(`no answer within ${PING_TIMEOUT_MS} ms`))
      })
    }
    const timer = this.#clock.after(PING_TIMEOUT_MS, onTimeout, true)
    const pinging: SubscriberState = { kind: 'pinging', client, timer }
    this.#state = pinging
    const onReply = () => {
      if (this.#state === pinging) this.#pingLater(client)
    }
    // An error reply (MISCONF, NOPERM, BUSY, …) is a reply: the connection works.
    client.ping().then(onReply, (error: Error) => {
      if (isErrorReply(error)) onReply()
      else this.#onFailure(client, error)
    })
  }

  #onFailure(client: RedisServerClient, error?: Error): void {
    if (!this.#uses(client)) return
    const { up } = this
    this.#stopTimer()
    this.#lastError = error && safeCopy(error)
    this.#retryLater()
    client.disconnect()
    if (!up) return
    emit('connection', { link: 'subscription', up: false, error: this.#lastError })
    this.#events.down()
  }

  #retryLater(): void {
    const timer = this.#clock.after(
      this.#retryDelay * (0.75 + Math.random() / 4),
      () => this.#connect(),
      true,
    )
    this.#state = { kind: 'retrying', timer }
    this.#retryDelay = Math.min(this.#retryDelay * 2, MAX_RETRY_DELAY_MS)
  }

  #stopTimer(): void {
    if ('timer' in this.#state) this.#state.timer.cancel()
  }

  /** Ends the subscription. */
  close(): void {
    this.#stopTimer()
    const state = this.#state
    this.#state = { kind: 'closed' }
    if ('client' in state) state.client.disconnect()
  }
}
