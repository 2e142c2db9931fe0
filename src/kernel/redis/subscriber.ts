import { emit } from '../telemetry.ts'
import type { Clock, Timer } from '../time/clock.ts'
import { nextTurn } from '../time/timers.ts'
import { causeOf, isReply, type RedisServerClient } from './client.ts'

/** A PING is sent this often (ms) … */
const PING_EVERY = 700
/** … and the connection is given up when an answer takes longer than this (ms): lost within 2 s, whatever happened. */
const PING_TIMEOUT = 1000
/** Connecting and subscribing may take this long, ms. */
const CONNECT_TIMEOUT = 2000
/** Pause before connecting again, ms; doubles up to the last. */
const RETRY_FIRST = 20
const RETRY_LAST = 1000

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
  readonly #make: () => RedisServerClient | undefined
  readonly #channels: readonly string[]
  readonly #events: SubscriberEvents
  readonly #clock: Clock
  /** The client of the present attempt; every event of an earlier one is ignored. */
  #client: RedisServerClient | undefined
  /** The one thing that is waited for: a connection, the next ping, its answer, or the next attempt. */
  #timer: Timer | undefined
  #retry = RETRY_FIRST
  #up = false
  #trouble: Error | undefined
  #closed = false

  constructor(
    make: () => RedisServerClient | undefined,
    channels: readonly string[],
    events: SubscriberEvents,
    clock: Clock,
  ) {
    this.#make = make
    this.#channels = channels
    this.#events = events
    this.#clock = clock
  }

  /** Whether messages arrive. */
  get up(): boolean {
    return this.#up
  }

  /** Why no messages arrive, as far as is known. */
  get trouble(): Error | undefined {
    return this.#trouble
  }

  /** Begins. */
  open(): void {
    if (this.#closed) return
    const client = this.#newClient()
    if (client) this.#connect(client)
    else this.#again()
  }

  /** A new client; undefined when there is none, or a borrowed one throws as it is duplicated. */
  #newClient(): RedisServerClient | undefined {
    try {
      return this.#make()
    } catch (error) {
      this.#trouble = causeOf(error)
      return undefined
    }
  }

  #connect(client: RedisServerClient): void {
    this.#client = client
    const fail = (error?: Error) => this.#failed(client, error)
    client.on('error', fail)
    client.on('end', () => fail())
    client.on('messageBuffer', (channel: Buffer, message: Buffer) => {
      if (client === this.#client) this.#events.message(channel.toString(), message)
    })
    this.#wait(CONNECT_TIMEOUT, () => fail(new Error(`no subscription within ${CONNECT_TIMEOUT} ms`)), false)
    client
      .connect()
      .then(() => client.subscribe(...this.#channels))
      .then(() => this.#subscribed(client), fail)
  }

  #subscribed(client: RedisServerClient): void {
    if (client !== this.#client) return
    this.#retry = RETRY_FIRST
    this.#up = true
    this.#trouble = undefined
    emit('connection', { link: 'subscription', up: true })
    this.#pingLater(client)
    this.#events.up()
  }

  #pingLater(client: RedisServerClient): void {
    this.#wait(PING_EVERY, () => {
      this.#wait(PING_TIMEOUT, () => {
        // If the event loop stood still, the answer may lie in the socket, unread: it is read before the next turn.
        const waiting = this.#timer
        nextTurn(() => {
          if (this.#timer === waiting) this.#failed(client, new Error(`no answer within ${PING_TIMEOUT} ms`))
        })
      })
      client.ping().then(
        () => client === this.#client && this.#pingLater(client),
        (error: Error) => {
          // A refusal (MISCONF, NOPERM, BUSY …) is an answer: the connection lives.
          if (!isReply(error)) this.#failed(client, error)
          else if (client === this.#client) this.#pingLater(client)
        },
      )
    })
  }

  #failed(client: RedisServerClient, error?: Error): void {
    if (client !== this.#client) return
    this.#client = undefined
    client.disconnect()
    this.#trouble = error && causeOf(error)
    if (this.#up) {
      this.#up = false
      emit('connection', { link: 'subscription', up: false, error: this.#trouble })
      this.#events.down()
    }
    this.#again()
  }

  #again(): void {
    if (this.#closed) return
    this.#wait(this.#retry * (0.75 + Math.random() / 4), () => this.open())
    this.#retry = Math.min(this.#retry * 2, RETRY_LAST)
  }

  #wait(ms: number, then: () => void, background = true): void {
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
