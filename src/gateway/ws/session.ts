import { setMaxListeners } from 'node:events'
import { SoloflightError } from '../../errors.ts'
import { reportHookError } from '../../kernel/hooks.ts'
import type { GatewayDeps } from '../deps.ts'
import { objectText, parseJson } from '../http/json.ts'
import type { Scope } from '../options.ts'
import { internalProblem, Problem, problemOf } from '../problem.ts'

/** What carries a session: a WebSocket. */
export interface Peer {
  /** Resolves with whether the text was handed to the system before the socket ended. */
  send(text: string): Promise<boolean>
  /** Bytes that wait to be sent. */
  readonly buffered: number
  ping(): void
  /** Says goodbye. The client is given a short time to do the same. */
  close(code: number, reason: string): void
  /** Ends the connection at once. */
  terminate(): void
}

/** The id of a message: its reply has the same one, and what it subscribes to is named by it. */
export type MessageId = string | number

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
export type Dispatch = (session: Session, envelope: Envelope) => Promise<MessageResult>

// Codes of RFC 6455 and of IANA's registry.
export const GOING_AWAY = 1001
export const UNSUPPORTED = 1003
export const INVALID = 1007
export const REFUSED = 1008

/** Messages of one socket that are being handled at once, at most. */
const MAX_RUNNING = 1_000

/** Subscriptions of one socket: workers, feeds, topics, queues. */
const MAX_SUBSCRIPTIONS = 1_000

/** A client for which so many bytes wait does not read: its socket is ended. Beside the largest message twice. */
const MAX_BUFFERED = 8 * 1024 * 1024

/** A client with so many bytes waiting is given no more of what can wait. */
const HIGH_WATER = 1024 * 1024

/** How often it is looked whether a client reads again, ms. */
const DRAIN_POLL = 20

const MAX_ID = 64

/** What a client has subscribed to. */
export interface Subscription {
  /** Ends it. Never rejects. */
  end(): Promise<void> | void
}

/**
 * One client on a WebSocket.
 *
 * | state  | event                                          | next state                                      |
 * | ------ | ---------------------------------------------- | ----------------------------------------------- |
 * | silent | a token that is known; none is needed          | open                                            |
 * | silent | another message, another token, 5 s have passed | ended                                          |
 * | open   | it is no message; its client does not read, or does not answer pings; the gateway closes | ended |
 * | ended  |                                                | what it had subscribed to has ended             |
 *
 * Every message is checked against the scopes of the token.
 */
export class Session {
  readonly deps: GatewayDeps
  readonly #peer: Peer
  readonly #dispatch: Dispatch
  readonly #subscriptions = new Map<MessageId, Subscription>()
  readonly #ended = new AbortController()
  /** Undefined while it is silent. */
  #scopes: readonly Scope[] | undefined
  #running = 0

  constructor(deps: GatewayDeps, peer: Peer, dispatch: Dispatch, scopes: readonly Scope[] | undefined) {
    this.deps = deps
    this.#peer = peer
    this.#dispatch = dispatch
    this.#scopes = scopes
    setMaxListeners(0, this.#ended.signal)
  }

  get isSilent(): boolean {
    return this.#scopes === undefined
  }

  /** What its token allows. @throws Problem 401 while it is silent. */
  get scopes(): readonly Scope[] {
    if (!this.#scopes) throw new Problem(401, 'token required')
    return this.#scopes
  }

  /** Aborts when the socket has ended. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  ping(): void {
    this.#peer.ping()
  }

  /** @throws Problem 401 if the token is not known: the session ends then. */
  signIn(token: string): readonly Scope[] {
    const scopes = this.deps.access.callerWith(token)?.scopes
    if (!scopes) throw new Problem(401, 'token required')
    this.#scopes = scopes
    return scopes
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
    const wasSilent = this.isSilent
    let reply: Reply
    try {
      const result = await this.deps.lifecycle.track(async () => this.#handle(envelope))
      const { text: ok, ...rest } = typeof result === 'object' ? result : { text: result ?? 'null' }
      reply = { ...rest, text: objectText({ id: JSON.stringify(id), ok }) }
    } catch (error) {
      reply = { text: objectText({ id: JSON.stringify(id), problem: problemText(error) }) }
    }
    const isSent = await this.send(reply.text)
    reply.settled?.(isSent)
    if (wasSilent && this.isSilent) this.close(REFUSED, 'token required')
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

  /** @throws Problem if the id names a subscription already, or there are too many. */
  subscribe(id: MessageId, subscription: Subscription): void {
    this.assertFree(id)
    this.#subscriptions.set(id, subscription)
  }

  /** @throws Problem if the id names a subscription already, or there are too many. */
  assertFree(id: MessageId): void {
    if (this.signal.aborted) throw new Problem(503, 'aborted')
    if (this.#subscriptions.has(id)) throw new Problem(409, 'subscribed already')
    if (this.#subscriptions.size >= MAX_SUBSCRIPTIONS) throw new Problem(429, 'too many subscriptions')
  }

  /** The subscription of this id, if it is one of this kind. @throws Problem 404 */
  subscription<T extends Subscription>(id: MessageId, kind: abstract new (...args: never[]) => T): T {
    const found = this.#subscriptions.get(id)
    if (found instanceof kind) return found
    throw new Problem(404, 'no such subscription')
  }

  /** All subscriptions of a kind. */
  subscriptions<T extends Subscription>(kind: abstract new (...args: never[]) => T): T[] {
    return [...this.#subscriptions.values()].filter((each): each is T => each instanceof kind)
  }

  /** Ends a subscription, if there is one of this id. */
  async unsubscribe(id: MessageId): Promise<boolean> {
    const found = this.#subscriptions.get(id)
    this.#subscriptions.delete(id)
    await found?.end()
    return found !== undefined
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
    const limit = MAX_BUFFERED + 2 * this.deps.options.maxBody
    if (this.#peer.buffered + text.length > limit) {
      this.terminate()
      return false
    }
    return this.#peer.send(text)
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
    const subscriptions = [...this.#subscriptions.values()]
    this.#subscriptions.clear()
    // The bus and the queues stay open until that is done.
    await this.deps.lifecycle.track(async () => Promise.all(subscriptions.map((each) => each.end())))
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
