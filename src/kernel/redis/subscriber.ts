import { emit } from '../telemetry.ts'
import type { Clock, Timer } from '../time/clock.ts'
import { nextTurn } from '../time/timers.ts'
import { isErrorReply, type RedisServerClient, safeCopy } from './client.ts'

/** A PING is sent this often (ms) … */
const PING_INTERVAL_MS = 700
/** … and the connection is given up when an answer takes longer than this (ms): lost within 2 s, whatever happened. */
const PING_TIMEOUT_MS = 1000
/** Connecting and subscribing may take this long, ms. */
const CONNECT_TIMEOUT_MS = 2000
/** Pause before connecting again, ms; doubles up to the last. */
const MIN_RETRY_DELAY_MS = 20
const MAX_RETRY_DELAY_MS = 1000

/** What a subscriber tells its owner. */
export interface SubscriberEvents {
  message(channel: string, message: Buffer): void
  /** Subscribed to everything, from this moment on. */
  up(): void
  /** Messages may have been missed since up to 2 s ago. */
  down(): void
}

/**
 * Holds one subscription open for ever: connects, subscribes, pings, and starts anew with a new client whenever the
 * present one fails, is silent or is closed. (A black-holed connection gives no sign by itself.)
 */
export class Subscriber {
  readonly #createClient: () => RedisServerClient | undefined
  readonly #channels: readonly string[]
  readonly #events: SubscriberEvents
  readonly #clock: Clock
  /** The client of the present attempt; every event of an earlier one is ignored. */
  #client: RedisServerClient | undefined
  /** The one thing that is waited for: a connection, the next ping, its answer, or the next attempt. */
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

  /** Why no messages arrive, as far as is known. */
  get lastError(): Error | undefined {
    return this.#lastError
  }

  /** Begins. */
  open(): void {
    if (this.#closed) return
    const client = this.#newClient()
    if (client) this.#connect(client)
    else this.#retryLater()
  }

  /** A new client; undefined when there is none, or a borrowed one throws as it is duplicated. */
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
        // If the event loop stood still, the answer may lie in the socket, unread: it is read before the next turn.
        const waiting = this.#timer
        nextTurn(() => {
          if (this.#timer === waiting)
            this.#onFailure(client, new Error(`no answer within ${PING_TIMEOUT_MS} ms`))
        })
      })
      client.ping().then(
        () => client === this.#client && this.#pingLater(client),
        (error: Error) => {
          // A refusal (MISCONF, NOPERM, BUSY …) is an answer: the connection lives.
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
