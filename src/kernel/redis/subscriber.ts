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
 * Keeps one subscription open: connects, subscribes and pings. When the client fails, is silent or is closed, it starts again
 * with a new client. The pings detect a black-holed connection, which causes no event.
 */
export class Subscriber {
  readonly #createClient: () => RedisServerClient | undefined
  readonly #channels: readonly string[]
  readonly #events: SubscriberEvents
  readonly #clock: Clock
  /** The present client; events of earlier ones are ignored. */
  #client: RedisServerClient | undefined
  /** Waits for the connection, the next ping, its reply, or the next attempt. */
  #timer: Timer | undefined
  #retryDelay = MIN_RETRY_DELAY_MS
  #up = false
  #lastError: Error | undefined
  #closed = false

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
    return this.#up
  }

  /** Why the subscription failed; undefined while it is established. */
  get lastError(): Error | undefined {
    return this.#lastError
  }

  /** Starts connecting. */
  open(): void {
    if (this.#closed) return
    const client = this.#newClient()
    if (client) this.#connect(client)
    else this.#retryLater()
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

  #connect(client: RedisServerClient): void {
    this.#client = client
    const fail = (error?: Error) => this.#onFailure(client, error)
    client.on('error', fail)
    client.on('end', () => fail())
    client.on('messageBuffer', (channel: Buffer, message: Buffer) => {
      if (client === this.#client) this.#events.message(channel.toString(), message)
    })
    this.#setTimer(
      CONNECT_TIMEOUT_MS,
      () => fail(new Error(`no subscription within ${CONNECT_TIMEOUT_MS} ms`)),
      false,
    )
    client
      .connect()
      .then(() => client.subscribe(...this.#channels))
      .then(() => this.#onSubscribed(client), fail)
  }

  #onSubscribed(client: RedisServerClient): void {
    if (client !== this.#client) return
    this.#retryDelay = MIN_RETRY_DELAY_MS
    this.#up = true
    this.#lastError = undefined
    emit('connection', { link: 'subscription', up: true })
    this.#pingLater(client)
    this.#events.up()
  }

  #pingLater(client: RedisServerClient): void {
    this.#setTimer(PING_INTERVAL_MS, () => {
      this.#setTimer(PING_TIMEOUT_MS, () => {
        // After a blocked event loop, the reply may lie unread in the socket. It is read before the next turn.
        const waiting = this.#timer
        nextTurn(() => {
          if (this.#timer === waiting)
            this.#onFailure(client, new Error(`no answer within ${PING_TIMEOUT_MS} ms`))
        })
      })
      client.ping().then(
        () => client === this.#client && this.#pingLater(client),
        (error: Error) => {
          // An error reply (MISCONF, NOPERM, BUSY, …) is a reply: the connection works.
          if (!isErrorReply(error)) this.#onFailure(client, error)
          else if (client === this.#client) this.#pingLater(client)
        },
      )
    })
  }

  #onFailure(client: RedisServerClient, error?: Error): void {
    if (client !== this.#client) return
    this.#client = undefined
    client.disconnect()
    this.#lastError = error && safeCopy(error)
    if (this.#up) {
      this.#up = false
      emit('connection', { link: 'subscription', up: false, error: this.#lastError })
      this.#events.down()
    }
    this.#retryLater()
  }

  #retryLater(): void {
    if (this.#closed) return
    this.#setTimer(this.#retryDelay * (0.75 + Math.random() / 4), () => this.open())
    this.#retryDelay = Math.min(this.#retryDelay * 2, MAX_RETRY_DELAY_MS)
  }

  #setTimer(ms: number, then: () => void, background = true): void {
    this.#timer?.cancel()
    this.#timer = this.#clock.after(ms, then, background)
  }

  /** Ends the subscription. */
  close(): void {
    this.#closed = true
    this.#timer?.cancel()
    this.#client?.disconnect()
    this.#client = undefined
    this.#up = false
  }
}
