import { TransientMap } from '../../kernel/collections.ts'
import { renewalRetryPause, type Timer } from '../../kernel/time.ts'
import { type Answer, MAX_QUERY, type Queried, queryMessage, readAnswers } from '../messages.ts'
import type { ServicesContext } from '../options.ts'
import type { Message } from '../store/store.ts'

/** Receives what processes say about one call. */
export interface CallListener {
  onAnswer(process: string, answer: Answer): void
  /** The lease of the process is over, or it does not answer. It may have run the call. */
  onProcessLost(process: string): void
}

/** How often the leases of the processes that run calls are looked at, ms. */
const SWEEP_MS = 250
/** A process that is asked, and does not answer within this time, is lost, ms. */
const ANSWER_TIMEOUT_MS = 1000
/** What is announced within this time is asked about together, ms: a process that closes says so of each of its services. */
const ANNOUNCED_PAUSE_MS = 50

/**
 * trusted   its lease holds, or it has answered lately
 * checking  its lease should be over: the record is read
 * asking    its record is gone, after FLUSHALL or because others have struck it off, or is said to be: it is asked itself
 *
 * | event                      | trusted  | checking | asking  |
 * | -------------------------- | -------- | -------- | ------- |
 * | the lease should be over   | checking |          |         |
 * | no sign of acceptance      | asking   |          |         |
 * | a service of calls is down | asking   |          |         |
 * | record: lease holds; error |          | trusted  |         |
 * | record: lease is over      |          | lost     |         |
 * | record: unknown            |          | asking   |         |
 * | an answer                  |          | trusted  | trusted |
 * | no answer in time, nor before the end of its lease |  |  | lost |
 *
 * lost: all its calls are told, and the peer is forgotten.
 */
type PeerState = 'trusted' | 'checking' | 'asking'

/** A dispatch of a call to a process. */
export interface Dispatched extends Queried {
  readonly service: string
  readonly at: number
}

/** A process that runs calls of this one. Its leases on all services are renewed together: any of them shows that it lives. */
class Peer {
  readonly process: string
  readonly calls = new TransientMap<string, Dispatched>()
  state: PeerState = 'trusted'
  /** By the clock, ms: the end of its lease while trusted, of the wait for its answer while asking. */
  until = 0
  /** The service of the last call. */
  service: string
  /** Calls that it must be asked about. Some may be over. */
  mustAsk: Set<string> | undefined
  /** On a cluster: when it must have shown that it has accepted a call. */
  acceptBy = Number.POSITIVE_INFINITY

  constructor(process: string, service: string) {
    this.process = process
    this.service = service
  }
}

/** The calls that this process has made, and the processes that run them. */
export class Calls {
  readonly #context: ServicesContext
  readonly #listeners = new TransientMap<string, CallListener>()
  readonly #peers = new TransientMap<string, Peer>()
  #sweepTimer: Timer | undefined
  #announcedTimer: Timer | undefined
  /** Processes that must be asked about their calls of services, which they do not serve any more. */
  #down = new Map<string, Set<string>>()
  /** When replies may last have been lost, by the clock, ms. */
  #recoveredAt = Number.NEGATIVE_INFINITY
  /** Answers to calls that are over. */
  late = 0

  constructor(context: ServicesContext) {
    this.#context = context
  }

  add(id: string, listener: CallListener): void {
    this.#listeners.set(id, listener)
  }

  delete(id: string): void {
    this.#listeners.delete(id)
  }

  /** A process was given the call. */
  watch(call: Dispatched, process: string, leaseLeft: number): void {
    const { clock, store } = this.#context
    const now = clock.now()
    let peer = this.#peers.get(process)
    if (!peer) {
      peer = new Peer(process, call.service)
      this.#peers.set(process, peer)
    }
    peer.service = call.service
    peer.calls.set(call.id, call)
    // It was under way when the others were asked for: its reply may have been lost too.
    if (call.at <= this.#recoveredAt) mustAsk(peer, [call])
    if (peer.state === 'trusted') peer.until = Math.max(peer.until, now + leaseLeft)
    // The number of receivers would have told.
    if (!store.countsReceivers) peer.acceptBy = Math.min(peer.acceptBy, now + ANSWER_TIMEOUT_MS)
    this.#sweepTimer ??= clock.after(SWEEP_MS, this.#sweep, true)
  }

  unwatch(id: string, process: string): void {
    const peer = this.#peers.get(process)
    if (peer?.calls.delete(id) && peer.calls.size === 0) this.#peers.delete(process)
  }

  /** Returns whether it was a message for a process that calls. */
  onMessage(message: Message): boolean {
    if (!'venlrpd'.includes(message.kind)) return false
    if (message.kind === 'r') this.#heard(message.fields[0] ?? '')
    readAnswers(message, (id, process, answer) => {
      this.#heard(process)
      const listener = this.#listeners.get(id)
      if (listener) listener.onAnswer(process, answer)
      else if (answer.kind === 'result' || answer.kind === 'failure') this.late++
    })
    return true
  }

  #heard(process: string): void {
    const peer = this.#peers.get(process)
    if (!peer) return
    peer.acceptBy = Number.POSITIVE_INFINITY
    if (peer.state === 'trusted') return
    peer.state = 'trusted'
    peer.until = this.#context.clock.now() + this.#context.options.lease
  }

  readonly #sweep = (): void => {
    const { clock } = this.#context
    const now = clock.now()
    for (const peer of this.#peers.values()) this.#examine(peer, now)
    this.#sweepTimer = this.#peers.size > 0 ? clock.after(SWEEP_MS, this.#sweep, true) : undefined
  }

  #examine(peer: Peer, now: number): void {
    if (peer.mustAsk) this.#queryDue(peer)
    if (peer.state === 'trusted') {
      if (now >= peer.acceptBy) this.#ask(peer)
      else if (now >= peer.until) void this.#check(peer)
    } else if (peer.state === 'asking') {
      if (now >= peer.until) this.#lose(peer)
      else this.#query(peer)
    }
  }

  async #check(peer: Peer): Promise<void> {
    const { store, storeTimeout, clock, options } = this.#context
    peer.state = 'checking'
    const health = await store
      .check(peer.service, peer.process, storeTimeout)
      .catch(() => renewalRetryPause(options.lease))
    if (peer.state !== 'checking') return
    if (health === 'lost') return this.#lose(peer)
    if (health === 'unknown') return this.#ask(peer)
    peer.state = 'trusted'
    peer.until = clock.now() + health
  }

  /** Asks a process whether it lives, and about calls. Without an answer it is lost, but not before `leaseEndsAt`. */
  #ask(peer: Peer, calls: readonly Dispatched[] = [...peer.calls.values()], leaseEndsAt = 0): void {
    peer.state = 'asking'
    peer.acceptBy = Number.POSITIVE_INFINITY
    peer.until = Math.max(this.#context.clock.now() + ANSWER_TIMEOUT_MS, leaseEndsAt)
    this.#query(peer, calls)
  }

  #lose(peer: Peer): void {
    this.#peers.delete(peer.process)
    for (const [id] of peer.calls.entries()) this.#listeners.get(id)?.onProcessLost(peer.process)
  }

  /** Asks a process about the calls that it must be asked about. */
  #queryDue(peer: Peer): void {
    const due: Dispatched[] = []
    for (const id of peer.mustAsk ?? []) {
      const call = peer.calls.get(id)
      if (call) due.push(call)
    }
    peer.mustAsk = undefined
    this.#query(peer, due)
  }

  /** Asks a process what became of calls. */
  #query(peer: Peer, calls: readonly Dispatched[] = [...peer.calls.values()]): void {
    const { store, storeTimeout, clock } = this.#context
    const now = clock.now()
    for (let from = 0; from < calls.length; from += MAX_QUERY) {
      const page = calls.slice(from, from + MAX_QUERY)
      const age = Math.max(...page.map(({ at }) => now - at))
      store
        .send(peer.process, queryMessage(store.address, age, page), storeTimeout)
        .catch(() => mustAsk(peer, page))
    }
  }

  /** Replies may have been lost: to this process, or to and from `process`. */
  recover(process?: string): void {
    this.#recoveredAt = this.#context.clock.now()
    const peers = process === undefined ? this.#peers.values() : [this.#peers.get(process)]
    for (const peer of peers) if (peer) this.#query(peer)
  }

  /**
   * The process does not serve a service any more, or was struck off. It is asked about the calls of the service, once for
   * all announcements of a short time. If it does not answer either, it is lost with its lease.
   */
  onDown(service: string, process: string): void {
    const { clock } = this.#context
    this.#recoveredAt = clock.now()
    if (!this.#peers.has(process)) return
    const services = this.#down.get(process) ?? new Set()
    this.#down.set(process, services.add(service))
    this.#announcedTimer ??= clock.after(ANNOUNCED_PAUSE_MS, this.#askDown, true)
  }

  readonly #askDown = (): void => {
    this.#announcedTimer = undefined
    const down = this.#down
    this.#down = new Map()
    for (const [process, services] of down) {
      const peer = this.#peers.get(process)
      const calls = [...(peer?.calls.values() ?? [])].filter(({ service }) => services.has(service))
      if (!peer || calls.length === 0) continue
      if (peer.state === 'trusted') this.#ask(peer, calls, peer.until)
      else this.#query(peer, calls)
    }
  }

  close(): void {
    this.#sweepTimer?.cancel()
    this.#announcedTimer?.cancel()
  }
}

function mustAsk(peer: Peer, calls: readonly Dispatched[]): void {
  peer.mustAsk ??= new Set()
  for (const { id } of calls) peer.mustAsk.add(id)
}
