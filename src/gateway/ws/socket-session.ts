import { setMaxListeners } from 'node:events'
import { SoloflightError } from '../../errors.ts'
import { reportHookError } from '../../kernel/hooks.ts'
import type { GatewayDeps } from '../deps.ts'
import type { Caller } from '../env.ts'
import { objectText, parseJson } from '../http/json.ts'
import type { Scope } from '../options.ts'
import { internalProblem, Problem, problemOf } from '../problem.ts'
import { Share, type SocketPools } from './limits.ts'
import { type MessageId, type Subscription, Subscriptions } from './subscriptions.ts'

/** The WebSocket of a session. */
export interface Peer {
  /** Resolves with whether the text was handed to the system before the socket ended. */
  send(text: string): Promise<boolean>
  /** Bytes that wait to be sent. */
  readonly buffered: number
  ping(): void
  /** Stops reading, so that the client has to wait. A peer that cannot is refused what is too much. */
  pause?(): void
  /** Reads again. */
  resume?(): void
  /** Says goodbye. The client is given a short time to do the same. */
  close(code: number, reason: string): void
  /** Ends the connection at once. */
  terminate(): void
}

/** A reply: the JSON of `ok`, and what to do when it was sent, or the socket had ended before. */
export interface Reply {
  readonly text: string
  readonly settled?: (isSent: boolean) => void
}

/** The JSON of `ok`; undefined: null. */
export type MessageResult = string | Reply | undefined

/** A text that is a message. */
export interface Envelope {
  readonly id: MessageId
  readonly type: string
  readonly value: object
  readonly text: string
}

/** Checks a message, and does what it says. @throws what a problem is made of */
export type Dispatch = (session: SocketSession, envelope: Envelope) => Promise<MessageResult>

// Codes of RFC 6455 and of IANA's registry.
export const GOING_AWAY = 1001
export const UNSUPPORTED = 1003
export const INVALID = 1007
export const REFUSED = 1008

/** Messages of one socket that are being handled at once, at most. */
const MAX_RUNNING = 1_000

/** A client with so many bytes waiting is given no more of what can wait. */
const HIGH_WATER = 1024 * 1024

/** How often it is looked whether a client reads again, ms. */
const DRAIN_POLL = 20

const MAX_ID = 64

/** What a session uses. */
export interface SocketSessionDeps {
  readonly deps: GatewayDeps
  readonly peer: Peer
  readonly dispatch: Dispatch
  readonly pools: SocketPools
  /** Ends the slowest sockets of all, until what waits to be sent is within its limit. */
  readonly relieve: () => void
  /** The caller has one more socket: returns what gives that back. @throws Problem 429 if it has its share already */
  readonly enter: (caller: Caller) => () => void
}

/**
 * The session of one client on a WebSocket.
 *
 * | state           | event                                                  | next state                          |
 * | --------------- | ------------------------------------------------------ | ----------------------------------- |
 * | unauthenticated | a token that is known; none is needed                  | open                                |
 * | unauthenticated | another message, another token, 5 s have passed        | ended                               |
 * | open            | a text that is no message; its client does not read, or does not answer pings; the gateway closes | ended |
 * | ended           |                                                        | its subscriptions have ended        |
 *
 * Every message is checked against the scopes of the token.
 */
export class SocketSession {
  readonly deps: GatewayDeps
  readonly #peer: Peer
  readonly #dispatch: Dispatch
  readonly #relieve: () => void
  readonly #enter: SocketSessionDeps['enter']
  #leave: () => void = () => {}
  readonly #subscriptions: Subscriptions
  readonly #ended = new AbortController()
  /** Undefined while it is unauthenticated. */
  #caller: Caller | undefined
  #running = 0
  readonly #handled: Share
  readonly #buffered: Share
  #isPaused = false

  /** @throws Problem 429 if the caller has too many sockets. */
  constructor(
    { deps, peer, dispatch, pools, relieve, enter }: SocketSessionDeps,
    caller: Caller | undefined,
  ) {
    this.deps = deps
    this.#peer = peer
    this.#dispatch = dispatch
    this.#relieve = relieve
    this.#enter = enter
    if (caller) this.#leave = enter(caller)
    this.#caller = caller
    this.#handled = new Share(pools.handled)
    this.#subscriptions = new Subscriptions(pools.kept)
    this.#buffered = new Share(pools.buffered)
    setMaxListeners(0, this.#ended.signal)
  }

  get isUnauthenticated(): boolean {
    return this.#caller === undefined
  }

  /** Whether nothing is read, pongs neither. */
  get isPaused(): boolean {
    return this.#isPaused
  }

  /** Bytes that wait to be sent. */
  get buffered(): number {
    return this.#buffered.used
  }

  get caller(): Caller | undefined {
    return this.#caller
  }

  /** The name of its token. */
  get name(): string | undefined {
    return this.#caller?.name
  }

  /** What its token allows. @throws Problem 401 while it is unauthenticated. */
  get scopes(): readonly Scope[] {
    if (!this.#caller) throw new Problem(401, 'token required')
    return this.#caller.scopes
  }

  /** Aborts when the socket has ended. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  ping(): void {
    this.#peer.ping()
  }

  /** @throws Problem 401 if the token is not known, 429 if its holder has too many sockets: a silent session ends then. */
  signIn(token: string): readonly Scope[] {
    const caller = this.deps.access.callerWith(token)
    if (!caller) throw new Problem(401, 'token required')
    if (caller.holder !== this.#caller?.holder || this.isUnauthenticated) {
      const leave = this.#enter(caller)
      this.#leave()
      this.#leave = leave
    }
    this.#caller = caller
    return caller.scopes
  }

  /** A text has arrived. */
  receive(text: string): void {
    if (this.signal.aborted) return
    const envelope = envelopeOf(text)
    if (!envelope) return this.close(INVALID, 'not a message')
    void this.#answer(envelope)
  }

  async #answer(envelope: Envelope): Promise<void> {
    const { id } = envelope
    const wasUnauthenticated = this.isUnauthenticated
    let reply: Reply
    const isTooMuch = this.#handled.isOver(2)
    const { length } = envelope.text
    this.#handled.add(length)
    this.#readIfRoom()
    try {
      if (isTooMuch) throw new Problem(503, 'overloaded')
      const result = await this.deps.lifecycle.track(async () => this.#handle(envelope))
      const { text: ok, ...rest } = typeof result === 'object' ? result : { text: result ?? 'null' }
      reply = { ...rest, text: objectText({ id: JSON.stringify(id), ok }) }
    } catch (error) {
      reply = { text: objectText({ id: JSON.stringify(id), problem: problemText(error) }) }
    } finally {
      this.#handled.add(-length)
      this.#readIfRoom()
    }
    const isSent = await this.send(reply.text)
    reply.settled?.(isSent)
    if (wasUnauthenticated && this.isUnauthenticated) this.close(REFUSED, 'token required')
  }

  /** Reads while the messages that are being handled are not too large: for this socket, and for all. */
  readonly #readIfRoom = (): void => {
    const isOver = this.#handled.isOver() && !this.signal.aborted
    if (isOver === this.#isPaused) return
    this.#isPaused = isOver
    if (isOver) {
      this.#handled.awaitRoom(this.#readIfRoom)
      this.#peer.pause?.()
    } else {
      this.#handled.stopAwaiting(this.#readIfRoom)
      this.#peer.resume?.()
    }
  }

  async #handle(envelope: Envelope): Promise<MessageResult> {
    if (this.#running >= MAX_RUNNING) throw new Problem(503, 'overloaded')
    this.#running++
    try {
      return await this.#dispatch(this, envelope)
    } finally {
      this.#running--
    }
  }

  /**
   * `bytes`: what it keeps of what the client has sent.
   * @throws Problem if the id names a subscription already, or there are too many, or they keep too much.
   */
  subscribe(id: MessageId, subscription: Subscription, bytes = 0): void {
    if (this.signal.aborted) throw new Problem(503, 'aborted')
    this.#subscriptions.add(id, subscription, bytes)
  }

  /** A subscription keeps so much now. If that is too much, it ends. @throws Problem then */
  keeps(id: MessageId, bytes: number): Promise<void> {
    return this.#subscriptions.resize(id, bytes)
  }

  /** The subscription of this id, if it is one of this kind. @throws Problem 404 */
  subscription<T extends Subscription>(id: MessageId, kind: abstract new (...args: never[]) => T): T {
    const found = this.#subscriptions.get(id)
    if (found instanceof kind) return found
    throw new Problem(404, 'no such subscription')
  }

  /** The name of what a subscription is about, if it has one. */
  nameOf(id: unknown): string | undefined {
    return this.#subscriptions.get(id as MessageId)?.name
  }

  /** All subscriptions of a kind. */
  subscriptions<T extends Subscription>(kind: abstract new (...args: never[]) => T): T[] {
    return this.#subscriptions.all.filter((each): each is T => each instanceof kind)
  }

  /** Ends a subscription, if there is one of this id. */
  unsubscribe(id: MessageId): Promise<boolean> {
    return this.#subscriptions.end(id)
  }

  /** Sends what belongs to a subscription. Resolves with whether it was sent. */
  push(id: MessageId, members: Readonly<Record<string, string | undefined>>): Promise<boolean> {
    return this.send(objectText({ sub: JSON.stringify(id), ...members }))
  }

  /** Calls `ready` when the client reads: at once if little waits to be sent to it. */
  readonly whenDrained = (ready: () => void): void => {
    if (this.signal.aborted) return
    if (this.#peer.buffered <= HIGH_WATER) ready()
    else this.deps.clock.after(DRAIN_POLL, () => this.whenDrained(ready), true)
  }

  async send(text: string): Promise<boolean> {
    if (this.signal.aborted) return false
    if (this.#buffered.excess(text.length) === 'each') {
      this.terminate()
      return false
    }
    const sent = this.#peer.send(text)
    this.#countBuffered()
    this.#relieve()
    const isSent = await sent
    this.#countBuffered()
    return isSent
  }

  #countBuffered(): void {
    this.#buffered.set(this.signal.aborted ? 0 : this.#peer.buffered)
  }

  close(code: number, reason: string): void {
    if (this.signal.aborted) return
    this.#peer.close(code, reason)
    void this.end()
  }

  terminate(): void {
    this.#peer.terminate()
    void this.end()
  }

  /** The socket has ended. Resolves when all that it had subscribed to has ended. Never rejects. */
  async end(): Promise<void> {
    this.#ended.abort()
    this.#leave()
    this.#countBuffered()
    this.#readIfRoom()
    // The bus and the queues stay open until that is done.
    await this.deps.lifecycle.track(() => this.#subscriptions.endAll())
  }
}

/** Undefined unless the text is a message: an object with an id and a type. */
function envelopeOf(text: string): Envelope | undefined {
  let value: unknown
  try {
    value = parseJson(text).value
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  const { id, type } = value as { id?: unknown; type?: unknown }
  const isId = typeof id === 'string' ? id.length <= MAX_ID : Number.isSafeInteger(id)
  return isId && typeof type === 'string' ? { id: id as MessageId, type, value, text } : undefined
}

/** The problem of anything that was thrown, with the code of the library's error. A fault of the gateway is reported here. */
export function problemText(error: unknown): string {
  let problem = problemOf(error)
  if (!problem) {
    reportHookError('gateway', error)
    problem = internalProblem()
  }
  const { cause } = problem
  const code = cause instanceof SoloflightError ? cause.code : undefined
  return JSON.stringify({ ...problem.toJSON(), code })
}
