import pDefer, { type DeferredPromise } from 'p-defer'
import { ClosedError, LockTimeoutError, OverloadedError, UnavailableError } from '../errors.ts'
import type { Timer } from '../kernel/clock.ts'
import type { Codec } from '../kernel/codec.ts'
import { newId } from '../kernel/ids.ts'
import { listened, tell } from '../kernel/telemetry.ts'
import type { WaitNode } from './deadlock.ts'
import { remoteError } from './failure.ts'
import { Holding, type HoldingFlight, lingerOf } from './holding.ts'
import { Lease } from './lease.ts'
import { performWork } from './perform.ts'
import type { Claimer, ClaimReply, Notice, Outcome } from './store.ts'
import type { Call, Waiter } from './waiter.ts'

/** The table that a flight is in, as far as the flight tells it how things went. */
export interface FlightTable {
  /** Its claim goes out now. */
  sent(flight: Flight): void
  /** It is over: nobody can join it any more. */
  remove(flight: Flight): void
  /** `close` waits for this. */
  track(operation: Promise<unknown>): void
}

/**
 * claiming  a claim is under way
 * parked    another process is the processor; we will be told
 * holding   this process is the processor
 * over      everybody is settled
 */
type State = 'claiming' | 'parked' | 'holding' | 'over'

/** Added to the moment when a parked flight looks again, so that not all processes do at the same time, ms. */
const JITTER = 25

/** How often a parked flight looks while no messages arrive, ms. */
const LOOK_WHILE_DEAF = 500

/**
 * The callers of one key in this process, who share one claim. Whoever waits here waits for the same outcome; the first
 * becomes the processor when the claim is granted, and the next when that one gives up.
 *
 * Only what comes from the store moves it: replies and notices. Notices are hints: a parked flight also looks by itself
 * when the lease of the processor ends, and whenever messages may have been missed.
 */
export class Flight implements Claimer, HoldingFlight, WaitNode {
  readonly key: string
  readonly record: string
  readonly nonce: string = newId()
  waitsFor: Map<WaitNode, number> | undefined
  readonly #table: FlightTable
  /** How it claims: by the options of the call that began it. */
  readonly #leader: Call
  readonly #waiters = new Set<Waiter>()
  #state: State = 'claiming'
  #seq = 0
  /** Waiters up to this one joined before something that is known not to have been invalidated. */
  #vouched = 0
  #attempt = 0
  /** Only what was begun under a grant above this fence is wanted. */
  #after = 0
  /** The fence that we are, or were last, parked under. */
  #parkedUnder = 0
  #refresh: boolean
  /** The first claim did not end it: deadlines run. */
  #answered = false
  /** While a claim was under way there was a reason to claim again. */
  #hinted = false
  /** Since the claim went out, messages arrived and none of them invalidated the key. */
  #cacheable = false
  /** When the last claim went out, and after which waiter. */
  #claimSentAt = 0
  #claimSentSeq = 0
  #look: Timer | undefined
  #holding: Holding | undefined
  #landed: DeferredPromise<void> | undefined
  /** Starts the work although there is no slot. */
  #expedite: (() => void) | undefined

  constructor(leader: Call, table: FlightTable) {
    this.key = leader.key
    this.record = leader.record
    this.#leader = leader
    this.#table = table
    this.#refresh = leader.refresh
  }

  get seq(): number {
    return this.#seq
  }

  get over(): boolean {
    return this.#state === 'over'
  }

  /** Resolves when it is over. */
  landed(): Promise<void> {
    if (this.over) return Promise.resolve()
    this.#landed ??= pDefer()
    return this.#landed.promise
  }

  get waiters(): ReadonlySet<Waiter> {
    return this.#waiters
  }

  /** Adds a waiter. The table does so before the first claim and as long as the flight can be joined. */
  add(waiter: Waiter, left: () => void): void {
    waiter.seq = ++this.#seq
    this.#waiters.add(waiter)
    waiter.begin(() => {
      left()
      this.#left(waiter)
    })
    if (this.#answered || waiter.call.timeout < this.#leader.caller.unavailableAfter) waiter.startDeadline()
  }

  /** From now on it may take long. (The first claim is answered or refused within `unavailableAfter`, mostly by a result.) */
  #startDeadlines(): void {
    if (this.#answered) return
    this.#answered = true
    for (const waiter of this.#waiters) waiter.startDeadline()
  }

  /** Another work of this process waits for it, so it must not wait for a slot that that one has. */
  expedite(): void {
    this.#expedite?.()
  }

  vouch(seq: number): void {
    this.#vouched = Math.max(this.#vouched, seq)
  }

  /** What was accepted up to `fence` is no longer to be served: whether new callers must not join. */
  invalidated(fence: number): boolean {
    this.#cacheable = false
    // Without a grant to name yet (0), what its claim will bring may be older than the invalidation.
    const known = this.#holding?.grant.fence ?? this.#parkedUnder
    return known <= fence
  }

  /** Messages may have been missed. */
  deaf(): void {
    this.#cacheable = false
  }

  /** Messages arrive again. */
  lookAgain(): void {
    if (this.#state === 'parked') this.claim()
    else this.#hinted = true
  }

  /** Asks the store to be the processor, or for what there is. */
  claim(): void {
    this.#look?.cancel()
    this.#state = 'claiming'
    this.#hinted = false
    const { store, takeover, unavailableAfter, trace } = this.#leader.caller
    const claim = {
      key: this.record,
      nonce: this.nonce,
      attempt: ++this.#attempt,
      lease: this.#leader.lease,
      after: this.#after,
      parked: this.#parkedUnder,
      refresh: this.#refresh,
      takeover,
      trace: trace?.() ?? '',
    }
    store.claim(claim, { within: unavailableAfter }, this)
  }

  sending(): void {
    const { clock, store } = this.#leader.caller
    this.#claimSentAt = clock.now()
    this.#claimSentSeq = this.#seq
    this.#cacheable = store.subscribed
    this.#table.sent(this)
  }

  #awaits(attempt: number): boolean {
    return this.#state === 'claiming' && attempt === this.#attempt
  }

  unclaimed(error: unknown, attempt: number): void {
    if (this.#awaits(attempt)) this.#refuse(error)
  }

  claimed(reply: ClaimReply, attempt: number): void {
    if (this.#awaits(attempt)) this.#receive(reply, attempt)
    else if (reply.status === 'granted') this.#giveBack(attempt, reply.fence)
    else if (reply.status === 'parked' && this.#state === 'over') this.#unpark()
  }

  #receive(reply: ClaimReply, attempt: number): void {
    const { counters } = this.#leader.caller
    if (reply.status !== 'done') this.#startDeadlines()
    switch (reply.status) {
      case 'done':
        counters.hits++
        if (listened('hit')) tell('hit', { key: this.key, local: false })
        if (!reply.outcome.doomed) this.vouch(this.#claimSentSeq)
        this.#finish(reply.outcome, this.#vouched, this.#claimSentAt)
        break
      case 'granted':
        counters.grants++
        if (reply.takeover) counters.takeovers++
        tell('grant', { key: this.key, fence: reply.fence, takeover: reply.takeover })
        this.#parkedUnder = 0
        this.#hold(attempt, reply.fence, this.#claimSentAt)
        break
      case 'parked':
        counters.parks++
        this.vouch(this.#claimSentSeq)
        this.#park(reply)
        break
      case 'abandoned':
        this.#rejectAll((key) => new LockTimeoutError('The processor died, and takeover is off', { key }))
        break
      case 'overloaded':
        this.#rejectAll((key) => new OverloadedError('Too many wait for this key already', { key }))
    }
  }

  #park(reply: ClaimReply & { status: 'parked' }): void {
    const { store, clock } = this.#leader.caller
    tell('park', { key: this.key, fence: reply.fence, trace: reply.trace || undefined })
    this.#refresh = false
    this.#after = reply.after
    this.#parkedUnder = reply.fence
    this.#state = 'parked'
    if (this.#waiters.size === 0) return this.#leave()
    if (reply.progress) this.showProgress(reply.progress)
    if (this.#hinted) return this.claim()
    const deaf = !store.subscribed
    const left = deaf ? Math.min(reply.left, LOOK_WHILE_DEAF) : reply.left
    this.#look = clock.after(left + 1 + Math.random() * JITTER, () => this.claim())
  }

  /** A grant that nobody wants any more. If this fails, the lease ends by itself. */
  #giveBack(attempt: number, fence: number): void {
    const { caller, lease } = this.#leader
    const release = {
      key: this.record,
      nonce: this.nonce,
      attempt,
      fence,
      linger: lingerOf(lease),
      next: undefined,
    }
    this.#table.track(caller.store.release(release, { within: caller.unavailableAfter }).catch(() => {}))
  }

  #unpark(): void {
    const { store, unavailableAfter } = this.#leader.caller
    this.#table.track(store.unpark(this.record, this.nonce, { within: unavailableAfter }).catch(() => {}))
  }

  #refuse(error: unknown): void {
    const { counters } = this.#leader.caller
    this.#startDeadlines()
    counters.unavailable++
    if (!(error instanceof UnavailableError)) return this.#rejectAll(errorFor(error))
    for (const waiter of [...this.#waiters]) {
      if (waiter.call.caller.onUnavailable === 'fail') waiter.reject(errorFor(error)(this.key))
    }
    if (this.#waiters.size > 0) this.#hold(this.#attempt, 0, this.#leader.caller.clock.now())
    else this.#over()
  }

  /** Hands the grant to the first waiter; without one, back. */
  #hold(attempt: number, fence: number, sentAt: number): void {
    const [first] = this.#waiters
    if (!first) {
      if (fence > 0) this.#giveBack(attempt, fence)
      return this.#over()
    }
    this.#state = 'holding'
    const { call } = first
    const shared = fence > 0
    if (!shared) {
      call.caller.counters.unshared++
      tell('unshared', { key: this.key })
    }
    // The lease in the store is the one that was claimed, whoever of the waiters is first by now.
    const holding = new Holding(
      { ...call, lease: this.#leader.lease },
      { attempt, fence, sentAt, shared },
      this,
    )
    this.#holding = holding
    if (call.work) {
      this.#expedite = performWork(call.work, holding, this)
    } else {
      this.#waiters.delete(first)
      first.grant(new Lease(holding))
    }
  }

  notice(notice: Notice): void {
    if (this.#state !== 'parked' && this.#state !== 'claiming') return
    if (notice.kind === 'progress') this.showProgress(notice.bytes)
    else if (notice.kind === 'outcome' && notice.outcome.fence > this.#after) {
      this.#finish(notice.outcome, this.#vouched, this.#claimSentAt)
    } else this.lookAgain()
  }

  showProgress(bytes: Buffer): void {
    for (const { call } of this.#waiters) {
      const { onProgress, caller } = call
      if (onProgress) showTo(onProgress, bytes, caller.codec)
    }
  }

  settled(_holding: Holding, outcome: Outcome, sentSeq: number, sentAt: number, original: unknown): void {
    if (this.#state === 'over') return
    if (!outcome.doomed) this.vouch(sentSeq)
    this.#finish(outcome, outcome.fence === 0 ? this.#seq : this.#vouched, sentAt, original)
  }

  /** Gives everybody the outcome who may have it: all but strict waiters that nothing vouches for, who ask anew. */
  #finish(outcome: Outcome, vouched: number, keptFrom: number, original?: unknown): void {
    this.#holding = undefined
    this.#expedite = undefined
    const entitled = [...this.#waiters].filter((waiter) => !waiter.strict || waiter.seq <= vouched)
    const asksAnew = entitled.length < this.#waiters.size
    if (!asksAnew) this.#over()
    this.#handOver(outcome, entitled, keptFrom, original)
    if (!asksAnew) return
    this.#startDeadlines()
    // What may still be read by those who were parked for it answers them, unless it was invalidated meanwhile.
    if (outcome.doomed) this.#after = Math.max(this.#after, outcome.fence)
    this.#parkedUnder = outcome.doomed ? 0 : outcome.fence
    this.claim()
  }

  #handOver(outcome: Outcome, waiters: readonly Waiter[], keptFrom: number, original: unknown): void {
    if (outcome.kind === 'error') {
      for (const waiter of waiters) waiter.reject(remoteError(outcome.bytes, this.key, original))
      return
    }
    const { codec, cache } = this.#leader.caller
    try {
      const result = codec.decode(outcome.bytes)
      if (this.#cacheable && outcome.fresh > 0) {
        cache?.set(
          this.key,
          this.record,
          result,
          outcome.fence,
          outcome.bytes.length,
          keptFrom + outcome.fresh,
        )
      }
      for (const waiter of waiters) waiter.resolve(result)
    } catch (error) {
      for (const waiter of waiters) waiter.reject(error)
    }
  }

  /** The holding was lost: those who wait look for the successor, or are it. */
  lost(holding: Holding): void {
    if (this.#holding === holding) this.#goOn()
  }

  /** The holding is given up: in one step to the next of our own waiters, or to whoever is parked. */
  async released(holding: Holding): Promise<void> {
    const { attempt, fence, shared } = holding.grant
    if (!shared) return this.lost(holding)
    const { store, clock, unavailableAfter } = this.#leader.caller
    const { lease } = this.#leader
    const current = () => this.#holding === holding
    const next = current() && this.#waiters.size > 0 ? { attempt: ++this.#attempt, lease } : undefined
    const sentAt = clock.now()
    const release = { key: this.record, nonce: this.nonce, attempt, fence, linger: lingerOf(lease), next }
    const released = store.release(release, { within: unavailableAfter })
    this.#table.track(released.catch(() => {}))
    try {
      const reply = await released
      if (next && reply.fence !== undefined && current()) this.#hold(next.attempt, reply.fence, sentAt)
      else this.lost(holding)
    } catch (error) {
      this.lost(holding)
      throw error
    }
  }

  /** The work's outcome could not be published. */
  abandon(holding: Holding, error: unknown): void {
    if (this.#holding === holding) this.#rejectAll(errorFor(error))
  }

  #goOn(): void {
    this.#holding = undefined
    this.#expedite = undefined
    if (this.#waiters.size > 0) this.claim()
    else this.#over()
  }

  /** A waiter has left. What runs here runs on; what was only waited for is given up with the last waiter. */
  #left(waiter: Waiter): void {
    this.#waiters.delete(waiter)
    if (this.#waiters.size === 0 && this.#state === 'parked') this.#leave()
  }

  /** Nobody waits any more: the place on the record is given up. */
  #leave(): void {
    this.#over()
    this.#unpark()
  }

  #rejectAll(error: (key: string) => unknown): void {
    const waiters = [...this.#waiters]
    this.#over()
    if (this.#parkedUnder > 0) this.#unpark()
    for (const waiter of waiters) waiter.reject(error(this.key))
  }

  #over(): void {
    this.#state = 'over'
    this.#holding = undefined
    this.#look?.cancel()
    this.#leader.caller.store.ignore(this.nonce)
    this.#table.remove(this)
    this.#landed?.resolve()
  }
}

/** Calls a listener in a tick of its own: what it throws is its own affair. What cannot be read is not shown. */
function showTo(listener: (value: unknown) => void, bytes: Buffer, codec: Codec): void {
  try {
    const value = codec.decode(bytes)
    queueMicrotask(() => listener(value))
  } catch {
    // Progress is a courtesy; the outcome will tell if something is wrong.
  }
}

/** The same failure for each waiter, with its key. */
function errorFor(error: unknown): (key: string) => unknown {
  return (key) => {
    const options = {
      key,
      cause: error instanceof Error && error.cause !== undefined ? error.cause : undefined,
    }
    if (error instanceof UnavailableError) return new UnavailableError(error.message, options)
    if (error instanceof OverloadedError) return new OverloadedError(error.message, options)
    if (error instanceof ClosedError) return new ClosedError(error.message, options)
    return error
  }
}
