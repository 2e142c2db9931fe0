import { assertTransition, TransientMap, type Transitions } from '../collections.ts'
import { FORMAT, ID_LENGTH, newId } from '../keys.ts'
import { emit } from '../telemetry.ts'
import { type Clock, nextTurn, type Timer } from '../time.ts'
import { Channels } from './channels.ts'
import type { RedisServerClient } from './client.ts'
import { isErrorReply, safeCopy } from './diagnosis.ts'

/** A message for one listener. It is a hint: anybody who knows the nonce can send one. */
export interface Hint {
  /** One letter, defined by the layer that sends it. */
  kind: string
  /** Fields of the header. */
  fields: string[]
  /** The bytes after the header. */
  body: Buffer
}

/** Whether all fields are numbers. Anybody can send a message with others. */
export function areNumbers(fields: readonly (string | undefined)[]): fields is string[] {
  return fields.every((field) => field !== undefined && /^\d{1,16}$/.test(field))
}

/** Receives the messages for one nonce. */
export interface Listener {
  hint(hint: Hint): void
}

/** Length of the format version and the nonce at the beginning of a message. */
const NONCE_END = 1 + ID_LENGTH
const SPACE = 0x20
const NEWLINE = 0x0a
const STAR = 0x2a
const COLON = 0x3a

/**
 * Dispatches the messages to a process. A message contains the unguessable nonce of its listener. Messages without a
 * listener (late, forged, of another version) are dropped.
 *
 * Format of a message: `FORMAT nonce kind [field …] LF body`, fields separated by one blank.
 * Several messages in one: `FORMAT * length : message …`, with lengths in bytes, each message without a FORMAT.
 */
export class Inbox {
  /** The name of this inbox in records. */
  readonly id: string = newId()
  readonly #listeners = new TransientMap<string, Listener>()

  /** Listens for a nonce until {@link ignore}. */
  listen(nonce: string, listener: Listener): void {
    this.#listeners.set(nonce, listener)
  }

  ignore(nonce: string): void {
    this.#listeners.delete(nonce)
  }

  deliver(message: Buffer): void {
    if (message.length <= NONCE_END || message.toString('latin1', 0, 1) !== FORMAT) return
    if (message[1] === STAR) return this.#deliverBundle(message)
    this.#deliver(message)
  }

  /** Delivers each message of a bundle, up to the first that is malformed. */
  #deliverBundle(bundle: Buffer): void {
    for (let at = 2; at < bundle.length; ) {
      const colon = bundle.indexOf(COLON, at)
      const length = Number(bundle.toString('latin1', at, colon))
      const end = colon + 1 + length
      if (colon === -1 || !Number.isInteger(length) || length < NONCE_END - 1 || end > bundle.length) return
      // The colon is in the place of the FORMAT.
      this.#deliver(bundle.subarray(colon, end))
      at = end
    }
  }

  #deliver(message: Buffer): void {
    const listener = this.#listeners.get(message.toString('latin1', 1, NONCE_END))
    if (!listener) return
    const newline = message.indexOf(NEWLINE, NONCE_END)
    const headEnd = newline === -1 ? message.length : newline
    const kind = message.toString('latin1', NONCE_END, NONCE_END + 1)
    const fieldsAt = message[NONCE_END + 1] === SPACE ? NONCE_END + 2 : NONCE_END + 1
    const head = message.toString('latin1', Math.min(fieldsAt, headEnd), headEnd)
    const fields = head === '' ? [] : head.split(' ')
    listener.hint({ kind, fields, body: message.subarray(headEnd + 1) })
  }
}

/** Time from a PING's reply to the next PING … */
const PING_INTERVAL_MS = 700
/** … and for its reply: a lost connection is detected within two seconds. */
const PING_TIMEOUT_MS = 1000
const CONNECT_TIMEOUT_MS = 2000
/** Delay before connecting again: doubles with each attempt, up to the maximum. */
const MIN_RETRY_DELAY_MS = 20
const MAX_RETRY_DELAY_MS = 1000

/** Receives the events of a subscriber. */
export interface SubscriberEvents {
  message(channel: string, message: Buffer): void
  /** Subscribed to its own channels from now on. */
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
 * | event         | idle       | connecting | subscribed | pinging    | retrying   | closed |
 * | ------------- | ---------- | ---------- | ---------- | ---------- | ---------- | ------ |
 * | open          | connecting |            |            |            |            |        |
 * | #onSubscribed |            | subscribed |            |            |            |        |
 * | timer         |            | retrying   | pinging    | retrying   | connecting |        |
 * | PING's reply  |            |            |            | subscribed |            |        |
 * | #onFailure    |            | retrying   | retrying   | retrying   |            |        |
 * | close         | closed     | closed     | closed     | closed     | closed     |        |
 *
 * Where no client can be created, `open` and the timer of retrying lead to retrying instead of connecting. A client
 * belongs to one state after the other until it fails. Events of earlier clients are ignored.
 */
type SubscriberState =
  | { readonly kind: 'idle' | 'closed' }
  | {
      readonly kind: 'connecting' | 'subscribed' | 'pinging'
      readonly client: RedisServerClient
      readonly timer: Timer
    }
  | { readonly kind: 'retrying'; readonly timer: Timer }

const SUBSCRIBER_TRANSITIONS: Transitions<SubscriberState['kind']> = {
  idle: ['connecting', 'retrying', 'closed'],
  connecting: ['subscribed', 'retrying', 'closed'],
  subscribed: ['pinging', 'retrying', 'closed'],
  pinging: ['subscribed', 'retrying', 'closed'],
  retrying: ['connecting', 'retrying', 'closed'],
  closed: [],
}

/**
 * Keeps one subscription open: connects, subscribes and pings. When the client fails, is silent or is closed, it starts again
 * with a new client. The pings detect a black-holed connection, which causes no event.
 */
export class Subscriber {
  /** The channels of layers, beside its own. Their messages are events of the subscriber too. */
  readonly channels: Channels = new Channels((client, error) => this.#onFailure(client, error))
  readonly #createClient: () => RedisServerClient | undefined
  readonly #ownChannels: readonly string[]
  readonly #events: SubscriberEvents
  readonly #clock: Clock
  #state: SubscriberState = { kind: 'idle' }
  #retryDelay = MIN_RETRY_DELAY_MS
  #lastError: Error | undefined

  constructor(
    make: () => RedisServerClient | undefined,
    ownChannels: readonly string[],
    events: SubscriberEvents,
    clock: Clock,
  ) {
    this.#createClient = make
    this.#ownChannels = ownChannels
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

  open(): void {
    if (this.#state.kind === 'idle') this.#connect()
  }

  #enter(state: SubscriberState): void {
    assertTransition('subscriber', SUBSCRIBER_TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  #connect(): void {
    const client = this.#newClient()
    if (!client) return this.#retryLater()
    const fail = (error?: Error) => this.#onFailure(client, error)
    const timer = this.#clock.after(CONNECT_TIMEOUT_MS, () =>
      fail(new Error(`no subscription within ${CONNECT_TIMEOUT_MS} ms`)),
    )
    this.#enter({ kind: 'connecting', client, timer })
    client.on('error', fail)
    client.on('end', () => fail())
    client.on('messageBuffer', (channel: Buffer, message: Buffer) => {
      if (this.#uses(client)) this.#events.message(channel.toString(), message)
    })
    client
      .connect()
      .then(() => this.#subscribe(client))
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

  async #subscribe(client: RedisServerClient): Promise<void> {
    if (this.#uses(client)) await this.channels.connect(client, this.#ownChannels)
  }

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
    // A listener may have closed it.
    if (this.#uses(client)) this.channels.onUp(client)
  }

  #pingLater(client: RedisServerClient): void {
    this.#stopTimer()
    const timer = this.#clock.after(PING_INTERVAL_MS, () => this.#ping(client), true)
    this.#enter({ kind: 'subscribed', client, timer })
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
    this.#enter(pinging)
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
    this.channels.onDown()
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
    this.#enter({ kind: 'retrying', timer })
    this.#retryDelay = Math.min(this.#retryDelay * 2, MAX_RETRY_DELAY_MS)
  }

  #stopTimer(): void {
    if ('timer' in this.#state) this.#state.timer.cancel()
  }

  close(): void {
    const state = this.#state
    if (state.kind === 'closed') return
    this.#stopTimer()
    this.#enter({ kind: 'closed' })
    this.channels.close()
    if ('client' in state) state.client.disconnect()
  }
}
