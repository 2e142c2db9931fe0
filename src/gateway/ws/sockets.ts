import type { Timer } from '../../kernel/time.ts'
import type { GatewayDeps } from '../deps.ts'
import type { Scope } from '../options.ts'
import { internalProblem, Problem, problemOf } from '../problem.ts'
import { dispatcher } from './message.ts'
import { MESSAGE_TYPES } from './messages/index.ts'
import { GOING_AWAY, type Peer, REFUSED, Session } from './session.ts'

/** A client must say its token within this time, ms. */
const SILENT_MS = 5_000

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
  readonly deadline: Timer | undefined
}

/** The WebSockets of a gateway. */
export class Sockets {
  readonly #deps: GatewayDeps
  readonly #sessions = new Map<Session, Entry>()
  #timer: Timer | undefined

  constructor(deps: GatewayDeps) {
    this.#deps = deps
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
      const scopes = access.checkUpgrade(url, header)?.scopes
      if (!lifecycle.isOpen) throw new Problem(503, 'gateway is closing')
      if (this.#sessions.size >= options.maxSockets) throw new Problem(503, 'too many sockets')
      return { scopes }
    } catch (error) {
      return { problem: problemOf(error) ?? internalProblem() }
    }
  }

  /** Opens the session of a socket. */
  open(peer: Peer, scopes: readonly Scope[] | undefined): SocketListener {
    const { clock } = this.#deps
    const session = new Session(this.#deps, peer, dispatch, scopes)
    const deadline = session.isSilent
      ? clock.after(SILENT_MS, () => session.isSilent && session.close(REFUSED, 'token required'), true)
      : undefined
    const entry: Entry = { isAlive: true, deadline }
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
        deadline?.cancel()
        this.#sessions.delete(session)
        void session.end()
      },
    }
  }

  readonly #pingAll = (): void => {
    for (const [session, entry] of this.#sessions) {
      if (!entry.isAlive) session.terminate()
      else {
        entry.isAlive = false
        session.ping()
      }
    }
    this.#timer = this.#sessions.size > 0 ? this.#deps.clock.after(PING_MS, this.#pingAll, true) : undefined
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
