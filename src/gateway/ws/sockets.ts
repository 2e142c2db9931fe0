import type { Timer } from '../../kernel/time.ts'
import { Shares } from '../clients/shares.ts'
import type { GatewayDeps } from '../deps.ts'
import type { Caller } from '../env.ts'
import type { Scope } from '../options.ts'
import { internalProblem, Problem, problemOf } from '../problem.ts'
import { SocketPools } from './limits.ts'
import { dispatcher } from './message.ts'
import { MESSAGE_TYPES } from './messages/index.ts'
import { GOING_AWAY, type Peer, REFUSED, SocketSession } from './socket-session.ts'

/** A client must say its token within this time, ms. */
const AUTHENTICATE_WITHIN = 5_000

/** Of `maxSockets`, one in so many may be unauthenticated. */
const UNAUTHENTICATED_SHARE = 10

/** How often clients are pinged, ms. One that was not heard of between two pings is gone. */
const PING_MS = 15_000

/** A request to become a WebSocket. */
export interface UpgradeRequest {
  readonly url: URL
  header(name: string): string | undefined
}

/** What may be opened: the scopes that are known already, or why it is refused. */
export type Admission = { readonly scopes: readonly Scope[] | undefined } | { readonly problem: Problem }

const dispatch = dispatcher(MESSAGE_TYPES)

interface Entry {
  /** Whether it was heard of since the last ping. */
  isAlive: boolean
}

/** The WebSockets of a gateway. */
export class Sockets {
  readonly #deps: GatewayDeps
  readonly #sessions = new Map<SocketSession, Entry>()
  /** The callers of scopes that were admitted. */
  readonly #callers = new WeakMap<readonly Scope[], Caller>()
  readonly #shares: Shares
  /** What they hold. */
  readonly pools: SocketPools
  #timer: Timer | undefined

  constructor(deps: GatewayDeps) {
    this.#deps = deps
    const { maxBody, maxSockets, tokens } = deps.options
    this.#shares = new Shares(maxSockets, 'too many sockets', tokens)
    this.pools = new SocketPools(maxBody)
    deps.lifecycle.ending.addEventListener('abort', () => this.#closeAll(), { once: true })
  }

  get size(): number {
    return this.#sessions.size
  }

  /** Largest message of a client, in bytes. */
  get maxPayload(): number {
    return this.#deps.options.maxBody
  }

  /** Decides whether a request becomes a WebSocket. Never throws. */
  admit({ url, header }: UpgradeRequest): Admission {
    const { access, options, lifecycle } = this.#deps
    try {
      if (url.pathname !== `${options.basePath}/ws`) throw new Problem(404, 'no such route')
      if (url.search !== '')
        throw new Problem(400, 'invalid parameter', {
          detail: 'A WebSocket has no parameters: no token in its URL',
        })
      const caller = access.checkUpgrade(url, header)
      if (!lifecycle.isOpen) throw new Problem(503, 'gateway is closing')
      if (this.#sessions.size >= options.maxSockets) throw new Problem(503, 'too many sockets')
      this.#shares.assertRoom(caller)
      const scopes = caller && [...caller.scopes]
      if (caller && scopes) this.#callers.set(scopes, caller)
      return { scopes }
    } catch (error) {
      return { problem: problemOf(error) ?? internalProblem() }
    }
  }

  /** Opens the session of a socket. `scopes`: those of its admission. */
  open(peer: Peer, scopes: readonly Scope[] | undefined): SocketListener {
    const { clock } = this.#deps
    const places = { enter: this.#enter, relieve: this.#relieve, pools: this.pools }
    const sessionDeps = { deps: this.#deps, peer, dispatch, ...places }
    const caller = scopes && (this.#callers.get(scopes) ?? { scopes, by: 'token' })
    const session = new SocketSession(sessionDeps, caller)
    const timers: Timer[] = []
    const endAfter = (ms: number, reason: string, may = () => true) =>
      timers.push(clock.after(ms, () => may() && session.close(REFUSED, reason), true))
    if (session.isUnauthenticated) {
      this.#makeRoomForUnauthenticated()
      endAfter(AUTHENTICATE_WITHIN, 'token required', () => session.isUnauthenticated)
    }
    if (caller?.until !== undefined) endAfter(Math.max(0, caller.until - Date.now()), 'session is over')
    const entry: Entry = { isAlive: true }
    this.#sessions.set(session, entry)
    this.#timer ??= clock.after(PING_MS, this.#pingAll, true)
    return {
      onAlive: () => {
        entry.isAlive = true
      },
      onMessage: (text) => {
        entry.isAlive = true
        session.receive(text)
      },
      onInvalid: (code, reason) => session.close(code, reason),
      onClose: () => {
        for (const timer of timers) timer.cancel()
        this.#sessions.delete(session)
        void session.end()
      },
    }
  }

  readonly #enter = (caller: Caller): (() => void) => {
    this.#shares.assertRoom(caller)
    return this.#shares.take(caller)
  }

  readonly #pingAll = (): void => {
    for (const [session, entry] of this.#sessions) {
      // Its pongs are not read.
      if (session.isPaused) continue
      if (!entry.isAlive) session.terminate()
      else {
        entry.isAlive = false
        session.ping()
      }
    }
    this.#timer = this.#sessions.size > 0 ? this.#deps.clock.after(PING_MS, this.#pingAll, true) : undefined
  }

  /** Ends the oldest socket that has said no token, if there are too many: nobody uses up `maxSockets` without one. */
  #makeRoomForUnauthenticated(): void {
    const unauthenticated = [...this.#sessions.keys()].filter(
      (session) => session.isUnauthenticated && !session.signal.aborted,
    )
    const most = Math.max(1, Math.floor(this.#deps.options.maxSockets / UNAUTHENTICATED_SHARE))
    if (unauthenticated.length >= most) unauthenticated[0]?.terminate()
  }

  readonly #relieve = (): void => {
    const { limit } = this.pools.buffered
    while (this.pools.buffered.used > limit.all) {
      const open = [...this.#sessions.keys()].filter(({ buffered }) => buffered > 0)
      const slowest = open.reduce<SocketSession | undefined>(
        (most, each) => (most && most.buffered >= each.buffered ? most : each),
        undefined,
      )
      if (!slowest) return
      slowest.terminate()
    }
  }

  #closeAll(): void {
    this.#timer?.cancel()
    for (const session of this.#sessions.keys()) session.close(GOING_AWAY, 'gateway is closing')
  }
}

/** Receives what happens on a socket. */
export interface SocketListener {
  /** It has answered a ping. */
  onAlive(): void
  onMessage(text: string): void
  /** It has sent what is no text. */
  onInvalid(code: number, reason: string): void
  onClose(): void
}

const sockets = new WeakMap<object, Sockets>()

/** Keeps the sockets of a gateway for its adapters. */
export function keepSockets(gateway: object, of: Sockets): void {
  sockets.set(gateway, of)
}

/** @throws TypeError unless it is a gateway that `createGateway` made. */
export function socketsOf(gateway: object): Sockets {
  const found = sockets.get(gateway)
  if (!found) throw new TypeError('Expected a gateway that `createGateway` made')
  return found
}
