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

/**
 * trusted   its lease holds, or it has answered lately
 * checking  its lease should be over: the record is read
 * asking    its record is gone, after FLUSHALL or because others have struck it off: it is asked itself
 *
 * | event                      | trusted  | checking | asking  |
 * | -------------------------- | -------- | -------- | ------- |
 * | the lease should be over   | checking |          |         |
 * | no sign of acceptance      | asking   |          |         |
 * | struck off                 | asking   |          |         |
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
  readonly at: number
}

/** A process that runs calls of this one. Its leases on all services are renewed together: any of them shows that it lives. */
class Peer {
  readonly process: string
  /** The service of the last call. */
  service: string
  readonly calls = new TransientMap<string, Dispatched>()
  state: PeerState = 'trusted'
  /** By the clock, ms: the end of its lease while trusted, of the wait for its answer while asking. */
  until = 0
  /** It is to be asked what became of its calls. */
  unasked = false
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
  watch(call: Dispatched, service: string, process: string, leaseLeft: number): void {
    const { clock, store } = this.#context
    const now = clock.now()
    let peer = this.#peers.get(process)
    if (!peer) {
      peer = new Peer(process, service)
      this.#peers.set(process, peer)
    }
    peer.service = service
    peer.calls.set(call.id, call)
    // It was under way when the others were asked for: its reply may have been lost too.
    if (call.at <= this.#recoveredAt) peer.unasked = true
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
    if (peer.unasked) this.#query(peer)
    if (peer.state === 'trusted') {
      if (now >= peer.acceptBy) this.#ask(peer, now)
      else if (now >= peer.until) void this.#check(peer)
    } else if (peer.state === 'asking') {
      if (now >= peer.until) this.#lose(peer)
      else this.#query(peer)
    }
  }

  async #check(peer: Peer): Promise<void> {
    const { store, within, clock, options } = this.#context
    peer.state = 'checking'
    const health = await store
      .check(peer.service, peer.process, within)
      .catch(() => renewalRetryPause(options.lease))
    if (peer.state !== 'checking') return
    if (health === 'lost') return this.#lose(peer)
    if (health === 'unknown') return this.#ask(peer, clock.now())
    peer.state = 'trusted'
    peer.until = clock.now() + health
  }

  #ask(peer: Peer, now: number): void {
    peer.state = 'asking'
    peer.acceptBy = Number.POSITIVE_INFINITY
    peer.until = now + ANSWER_TIMEOUT_MS
    this.#query(peer)
  }

  #lose(peer: Peer): void {
    this.#peers.delete(peer.process)
    for (const [id] of peer.calls.entries()) this.#listeners.get(id)?.onProcessLost(peer.process)
  }

  /** Asks a process what became of its calls. */
  #query(peer: Peer): void {
    const { process, calls } = peer
    const { store, within, clock } = this.#context
    peer.unasked = false
    const now = clock.now()
    const all = [...calls.values()]
    for (let from = 0; from < all.length; from += MAX_QUERY) {
      const page = all.slice(from, from + MAX_QUERY)
      const age = Math.max(...page.map(({ at }) => now - at))
      store.send(process, queryMessage(store.address, age, page), within).catch(() => {
        peer.unasked = true
      })
    }
  }

  /** Replies may have been lost: to this process, or to and from `process`. */
  recover(process?: string): void {
    this.#recoveredAt = this.#context.clock.now()
    const peers = process === undefined ? this.#peers.values() : [this.#peers.get(process)]
    for (const peer of peers) if (peer) this.#query(peer)
  }

  /** The process serves a service no more, or was struck off. If it does not answer either, it is lost with its lease. */
  onDown(process: string): void {
    const peer = this.#peers.get(process)
    if (peer?.state !== 'trusted') return this.recover(process)
    const now = this.#context.clock.now()
    const leaseEndsAt = peer.until
    this.#recoveredAt = now
    this.#ask(peer, now)
    peer.until = Math.max(peer.until, leaseEndsAt)
  }

  close(): void {
    this.#sweepTimer?.cancel()
  }
}
