import { ClosedError, OverloadedError, UnavailableError } from '../../errors.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { errorOf, isRefusal } from './failures.ts'
import { type CallId, type GatewayMessage, type Push, readGatewayMessage } from './gateway-message.ts'
import { after, type Timer } from './timers.ts'

/** The part of a WebSocket that the library uses: those of browsers, of Node and of the package ws fit. */
export interface WebSocketLike {
  readonly readyState: number
  send(text: string): void
  close(code?: number): void
  addEventListener(type: 'open' | 'close' | 'error', listener: () => void): void
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void
}

/** The class of WebSockets: of browsers, of Node 22, or of the package ws. */
export type WebSocketClass = new (url: string) => WebSocketLike

export interface LinkOptions {
  readonly url: string
  readonly token: string | undefined
  /** ms */
  readonly unavailableAfter: number
  readonly WebSocket: WebSocketClass
}

/** What a client has subscribed to: each new socket subscribes again. */
export interface LinkSubscription {
  /** The id of the message that subscribes. */
  readonly sub: string
  /** Subscribes again. Sends at once what it sends. */
  restore(): void
  onPush(push: Push): void
  /** The socket has ended. */
  onLost?(): void
  /** The bus was disconnected. */
  onClosed(): void
}

export interface LinkListener {
  onOnline(): void
  onOffline(): void
}

/** Calls that wait, or have no reply, at most. */
const MAX_CALLS = 10_000

/** Pauses between attempts to connect, ms: random, up to a bound that doubles up to the maximum. */
const MIN_PAUSE = 50
const MAX_PAUSE = 1_000

/** How long a socket may take to open, and to answer a ping, ms. */
const ANSWER_WITHIN = 5_000
const PING_EVERY = 5_000

/** How a call is made. */
export interface CallOptions {
  /** The id of the message, if it subscribes. */
  readonly sub?: string
  /** Its answer may take any time: it ends with the socket alone. */
  readonly mayWait?: boolean
  /** Whether an answer has its form. Absent: it may be anything. */
  readonly isAnswer?: (ok: unknown) => boolean
}

class Call {
  isSent = false
  timer: Timer | undefined
  readonly text: string
  readonly key: string
  readonly mayWait: boolean
  readonly isAnswer: (ok: unknown) => boolean
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void

  constructor(
    { text, key, options }: { text: string; key: string; options: CallOptions },
    resolve: (value: unknown) => void,
    reject: (error: Error) => void,
  ) {
    this.text = text
    this.key = key
    this.mayWait = options.mayWait ?? false
    this.isAnswer = options.isAnswer ?? (() => true)
    this.resolve = resolve
    this.reject = reject
  }
}

/**
 * The connection of a client to a gateway.
 *
 * | state              | event                                          | next state                                                      |
 * | ------------------ | ---------------------------------------------- | --------------------------------------------------------------- |
 * | idle               | the first call                                 | connecting                                                      |
 * | connecting         | the token was accepted                         | online: the subscriptions are restored, then what waits is sent |
 * | connecting         | the token was refused                          | refused: all calls reject                                       |
 * | connecting         | the token cannot be checked now: 5xx, 408, 429 | pausing                                                         |
 * | connecting, online | the socket has ended                           | pausing: calls without an answer reject                         |
 * | connecting, online | what is no message comes                       | the same; the socket is ended                                   |
 * | pausing            | its time has passed                            | connecting                                                      |
 * | any                | `close`                                        | closed: all calls reject                                        |
 */
type State = 'idle' | 'connecting' | 'online' | 'pausing' | 'refused' | 'closed'

const TRANSITIONS: Transitions<State> = {
  idle: ['connecting', 'closed'],
  connecting: ['online', 'refused', 'pausing', 'closed'],
  online: ['pausing', 'closed'],
  pausing: ['connecting', 'closed'],
  refused: ['closed'],
  closed: [],
}

export class Link {
  readonly #options: LinkOptions
  readonly #listener: LinkListener
  readonly #calls = new Map<CallId, Call>()
  readonly #subscriptions = new Map<string, LinkSubscription>()
  #state: State = 'idle'
  #socket: WebSocketLike | undefined
  #pause = MIN_PAUSE
  /** Of the present state: the attempt, the next ping, its answer, the pause. */
  #timer: Timer | undefined
  #ids = 0
  #subs = 0

  constructor(options: LinkOptions, listener: LinkListener) {
    this.#options = options
    this.#listener = listener
  }

  #moveTo(state: State): void {
    assertTransition('link to a gateway', TRANSITIONS, this.#state, state)
    this.#state = state
  }

  get isOnline(): boolean {
    return this.#state === 'online'
  }

  /** A new id for what is subscribed to. */
  newSub(): string {
    return `s${++this.#subs}`
  }

  /** From now on each new socket restores it. */
  add(subscription: LinkSubscription): void {
    this.#subscriptions.set(subscription.sub, subscription)
  }

  delete(sub: string): void {
    this.#subscriptions.delete(sub)
  }

  /** Connects, unless it has begun to. @throws ClosedError, UnavailableError */
  open(): void {
    if (this.#state === 'closed') throw new ClosedError('The bus was disconnected')
    if (this.#state === 'refused') throw refusedError()
    if (this.#state === 'idle') this.#connect()
  }

  /**
   * Sends a message, when the gateway is there. Resolves with its answer.
   * @throws UnavailableError after `unavailableAfter` ms without the gateway, or without its answer unless that `mayWait`: if
   * `sent`, it may have taken effect; ClosedError; OverloadedError; what the gateway answers.
   */
  async call(type: string, key: string, members: object, options: CallOptions = {}): Promise<unknown> {
    this.open()
    const { sub } = options
    if (this.#calls.size >= MAX_CALLS) throw new OverloadedError('Too many calls wait', { key })
    const id = sub ?? ++this.#ids
    const text = JSON.stringify({ ...members, id, type })
    return new Promise((resolve, reject) => {
      const call = new Call({ text, key, options }, resolve, reject)
      this.#calls.set(id, call)
      call.timer = after(this.#options.unavailableAfter, () => this.#expire(id, call))
      if (this.isOnline) this.#send(call)
    })
  }

  /** Rejects a call that subscribes, if it was not sent. Returns whether there was one. */
  withdraw(sub: string, error: Error): boolean {
    if (this.#calls.get(sub)?.isSent !== false) return false
    this.#reject(sub, error)
    return true
  }

  #send(call: Call): void {
    call.isSent = true
    if (call.mayWait) call.timer?.cancel()
    this.#socket?.send(call.text)
  }

  #expire(id: CallId, call: Call): void {
    if (this.#calls.get(id) === call) this.#calls.delete(id)
    call.reject(unavailable('The gateway does not answer', call))
  }

  #connect(): void {
    this.#moveTo('connecting')
    const socket = new this.#options.WebSocket(this.#options.url)
    this.#socket = socket
    this.#after(ANSWER_WITHIN, () => this.#onEnded(socket))
    socket.addEventListener('open', () => this.#signIn(socket))
    socket.addEventListener('message', ({ data }) => this.#onMessage(socket, data))
    socket.addEventListener('close', () => this.#onEnded(socket))
    // `close` follows.
    socket.addEventListener('error', () => {})
  }

  #signIn(socket: WebSocketLike): void {
    if (socket !== this.#socket) return
    const { token } = this.#options
    // Without a token the gateway needs none, or knows the page by its cookie: this is refused if it does not.
    const hello = token === undefined ? { type: 'end', sub: HELLO } : { type: 'hello', token }
    socket.send(JSON.stringify({ id: HELLO, ...hello }))
  }

  /** What is no message, or an answer that is none, ends the socket. */
  #onMessage(socket: WebSocketLike, data: unknown): void {
    if (socket !== this.#socket) return
    const received = readGatewayMessage(data)
    if (!received) return this.#onEnded(socket)
    if (received.kind === 'push') return this.#subscriptions.get(String(received.sub))?.onPush(received.push)
    const { id } = received
    if (id === HELLO) return this.#onHello(socket, received)
    if (id === PING) return this.#onPong()
    const call = this.#calls.get(id)
    if (!call?.isSent) return
    // It is rejected with the others that have no answer.
    if (received.kind === 'answer' && !call.isAnswer(received.ok)) return this.#onEnded(socket)
    this.#calls.delete(id)
    call.timer?.cancel()
    if (received.kind === 'problem') call.reject(errorOf(received.problem, call.key))
    else call.resolve(received.ok)
  }

  #onHello(socket: WebSocketLike, answer: GatewayMessage): void {
    if (this.#state !== 'connecting') return
    if (answer.kind !== 'problem') this.#onOnline()
    else if (isRefusal(answer.problem)) this.#refuse()
    else this.#onEnded(socket)
  }

  #onPong(): void {
    if (this.#state !== 'online') return
    // Not earlier: a gateway that accepts the token, and then ends each socket, is asked less and less often too.
    this.#pause = MIN_PAUSE
    this.#pingLater()
  }

  #onOnline(): void {
    this.#moveTo('online')
    const waiting = [...this.#calls.values()]
    for (const subscription of [...this.#subscriptions.values()]) subscription.restore()
    for (const call of waiting) if (!call.isSent) this.#send(call)
    this.#pingLater()
    this.#listener.onOnline()
  }

  #pingLater(): void {
    this.#after(PING_EVERY, () => {
      const socket = this.#socket
      socket?.send(JSON.stringify({ id: PING, type: 'ping' }))
      this.#after(ANSWER_WITHIN, () => this.#onEnded(socket))
    })
  }

  #refuse(): void {
    this.#moveTo('refused')
    this.#drop()
    for (const id of [...this.#calls.keys()]) this.#reject(id, refusedError())
  }

  /** The socket has ended, or answers no more. */
  #onEnded(socket: WebSocketLike | undefined): void {
    if (socket !== this.#socket || this.#state === 'closed' || this.#state === 'refused') return
    const wasOnline = this.isOnline
    this.#drop()
    this.#moveTo('pausing')
    for (const [id, call] of [...this.#calls])
      if (call.isSent) this.#reject(id, unavailable('The connection to the gateway has ended', call))
    this.#after(this.#pause * (0.5 + Math.random() / 2), () => this.#connect())
    this.#pause = Math.min(2 * this.#pause, MAX_PAUSE)
    if (wasOnline) for (const subscription of [...this.#subscriptions.values()]) subscription.onLost?.()
    if (wasOnline) this.#listener.onOffline()
  }

  #reject(id: CallId, error: Error): void {
    const call = this.#calls.get(id)
    this.#calls.delete(id)
    call?.timer?.cancel()
    call?.reject(error)
  }

  /** Ends the socket. */
  #drop(): void {
    this.#timer?.cancel()
    const socket = this.#socket
    this.#socket = undefined
    socket?.close()
  }

  #after(ms: number, run: () => void): void {
    this.#timer?.cancel()
    this.#timer = after(ms, run)
  }

  close(): void {
    if (this.#state === 'closed') return
    const wasOnline = this.isOnline
    this.#moveTo('closed')
    this.#drop()
    for (const id of [...this.#calls.keys()]) this.#reject(id, new ClosedError('The bus was disconnected'))
    const subscriptions = [...this.#subscriptions.values()]
    this.#subscriptions.clear()
    for (const each of subscriptions) each.onClosed()
    if (wasOnline) this.#listener.onOffline()
  }
}

const HELLO = 'hello'
const PING = 'ping'

function unavailable(message: string, { key, isSent }: Call): UnavailableError {
  return new UnavailableError(message, { key, sent: isSent })
}

function refusedError(): UnavailableError {
  return new UnavailableError('The gateway refuses the token', { sent: false })
}
