import pDefer, { type DeferredPromise } from 'p-defer'
import { LockTimeoutError, OverloadedError, UnavailableError } from '../../errors.ts'
import { newId } from '../../kernel/ids.ts'
import { shown } from '../../kernel/options.ts'
import { emit, hasListeners } from '../../kernel/telemetry.ts'
import type { Timer } from '../../kernel/time/clock.ts'
import { warnOnce } from '../../kernel/warnings.ts'
import { callHook } from '../../kernel/work/user-code.ts'
import { TagCheck, type TagVerdict } from '../cache/tag-guard.ts'
import { Lease } from '../lease.ts'
import { HeldLease, type HeldLeaseEvents, lossMargin, outcomeRetention } from '../processor/held-lease.ts'
import { performWork } from '../processor/work-runner.ts'
import { ANY_AGE, type Claimer, type ClaimReply, type Notice, type Outcome } from '../store/store.ts'
import { storeUnclaimed } from './bypass.ts'
import type { WaitNode } from './deadlock.ts'
import { countUndecodable } from './locker-context.ts'
import { type Reading, ResultDelivery } from './result-delivery.ts'
import type { JoinedCall, Waiter } from './waiter.ts'
import { errorFor, giveFailure, type StaleResult, WaiterSet, type WaiterSetEvents } from './waiter-set.ts'

/** The table that a flight is in, as far as the flight tells it how things went. */
export interface FlightEvents {
  /** Its claim goes out now. */
  sent(flight: Flight): void
  /** Nobody can join it any more. */
  seal(flight: Flight): void
  /** It is over. */
  remove(flight: Flight): void
  /** Waiters of it ask for themselves; nobody joins it any more. */
  askAnew(flight: Flight, waiters: readonly Waiter[]): void
  /** A waiter of it runs its own work, beside all others. `fence`: the last one. */
  pass(waiter: Waiter, fence: number, stale: StaleResult | undefined): void
  /** Counts the tags that were heard to have begun a new epoch. */
  readonly tagDrops: number
  /** One of its waiters waits no longer. */
  left(): void
  /** `close` waits for this. */
  track(operation: Promise<unknown>): void
}

/**
 * reading   the value is being read, without claiming anything
 * claiming  a claim is under way
 * parked    another process is the processor; we will be told
 * holding   this process is the processor
 * over      everybody is settled
 */
type State = 'reading' | 'claiming' | 'parked' | 'processing' | 'closed'

/** Added to the moment when a parked flight looks again, so that not all processes do at the same time, ms. */
const JITTER = 25

/** Longest trace context that is kept, in characters. */
const MAX_TRACE = 512

/** How often a parked flight looks while no messages arrive, ms. */
const LOOK_WHILE_DEAF = 500

/**
 * The callers of one key in this process, who share one claim. Whoever waits here waits for the same outcome; the first
 * becomes the processor when the claim is granted, and the next when that one gives up.
 *
 * Only what comes from the store moves it: replies and notices. Notices are hints: a parked flight also looks by itself
 * when the lease of the processor ends, and whenever messages may have been missed.
 */
export class Flight implements Claimer, HeldLeaseEvents, WaitNode, WaiterSetEvents {
  readonly key: string
  readonly record: string
  readonly nonce: string = newId()
  waitsFor: Map<WaitNode, number> | undefined
  readonly #table: FlightEvents
  /** How it claims: by the options of the call that began it. */
  readonly #leader: JoinedCall
  readonly waiters: WaiterSet
  readonly #delivery: ResultDelivery
  readonly #tags: TagCheck
  #state: State = 'reading'
  #attempt = 0
  /** Only what was begun under a grant above this fence is wanted. */
  #after = 0
  /** The fence that we are, or were last, parked under. */
  #parkedUnder = 0
  #refresh: boolean
  /** While a claim was under way there was a reason to claim again. */
  #hinted = false
  #look: Timer | undefined
  /** When the lease of the one we are parked behind ends, as far as we were told. */
  #leaseEnd = 0
  #held: HeldLease | undefined
  /** The last fence that it was granted. */
  #granted = 0
  /** What is over was served on the promise that it is renewed. */
  #renews = false
  /** Whoever is left waits for what is new. */
  #patient = false
  /** Not to be told to go alone. */
  #stubborn: boolean
  /** Its work runs beside others; the last fence then. */
  #passed: number | undefined
  #landed: DeferredPromise<void> | undefined

  constructor(leader: JoinedCall, table: FlightEvents) {
    this.key = leader.key
    this.record = leader.record
    this.waiters = new WaiterSet(leader.key, this)
    this.#delivery = new ResultDelivery(leader, this.waiters, () => table.tagDrops)
    this.#tags = new TagCheck(leader)
    this.#leader = leader
    this.#table = table
    this.#refresh = leader.refresh
    this.#after = leader.afterFence
    // Who is granted a lease must hold one.
    this.#stubborn = !leader.work
  }

  get seq(): number {
    return this.waiters.seq
  }

  get over(): boolean {
    return this.#state === 'closed'
  }

  /** This process computes it. */
  get holds(): boolean {
    return this.#state === 'processing'
  }

  /** It does so for itself alone. */
  get unshared(): boolean {
    return this.#held?.grant.shared === false
  }

  /** Nobody waits for it, and it is not to be renewed for those who come either. */
  get deserted(): boolean {
    return this.waiters.size === 0 && !this.#renews
  }

  get unwanted(): boolean {
    return this.deserted && this.#held?.call.abortUnwanted === true
  }

  /** Others are served what is over meanwhile. */
  get renews(): boolean {
    return this.#renews
  }

  /** Whether its results have all the tags that a caller's would have. */
  covers(tags: readonly string[]): boolean {
    return tags.every((tag) => this.#tags.has(tag))
  }

  /** Whether what it will bring is begun under a grant above `fence`, as far as is known. */
  brings(fence: number): boolean {
    return fence <= this.#after || this.#awaited > fence
  }

  /** The store is being asked, and nobody waits for what it will bring. */
  get forsaken(): boolean {
    return (this.#state === 'reading' || this.#state === 'claiming') && this.waiters.size === 0
  }

  /** Resolves when it is over. */
  landed(): Promise<void> {
    if (this.over) return Promise.resolve()
    this.#landed ??= pDefer()
    return this.#landed.promise
  }

  /** Adds a waiter. The table does so before the first claim and as long as the flight can be joined. */
  add(waiter: Waiter): void {
    this.waiters.add(waiter)
    const renewed = this.#state === 'processing' || this.#state === 'parked'
    if (renewed) this.#serveStale()
  }

  vouch(seq: number): void {
    // Of its tags nothing has been heard since its claim went out.
    if (this.#state === 'processing' && this.#tags.epochs.size > 0) return
    this.waiters.vouch(seq)
  }

  /** An invalidation, the first of the grant `fence`, came after the waiter `seq`. */
  vouchFor(fence: number, seq: number): void {
    if (fence === this.#awaited) this.vouch(seq)
  }

  /** The grant whose outcome is waited for; 0 when none can be named. */
  get #awaited(): number {
    return this.#held?.grant.fence ?? this.#parkedUnder
  }

  doomed(): void {
    this.#table.seal(this)
  }

  /** What was accepted up to `fence` is no longer to be served: whether new callers must not join. */
  invalidated(fence: number): boolean {
    this.#delivery.disturb()
    this.waiters.withdraw(fence)
    // Without a grant to name yet (0), what its claim will bring may be older than the invalidation.
    return this.#awaited <= fence
  }

  /** A tag has begun a new epoch: whether new callers must not join. */
  tagDropped(tag: string): boolean {
    if (!this.#tags.has(tag) && !this.waiters.stale?.tags.includes(tag)) return false
    this.#delivery.disturb()
    this.waiters.withdraw(Number.MAX_SAFE_INTEGER)
    return true
  }

  /** Messages may have been missed, and may be from now on. */
  deaf(): void {
    this.#delivery.disturb()
    if (this.#state === 'parked')
      this.#lookAfter(Math.min(LOOK_WHILE_DEAF, this.#leaseEnd - this.#leader.locker.clock.now()))
  }

  /** Messages arrive again. */
  lookAgain(): void {
    if (this.#state === 'parked') this.claim()
    else this.#hinted = true
    // Redis is back: what is made for this process alone is no longer for those who come now.
    if (this.unshared) this.#table.seal(this)
  }

  /** Reads the value, and claims if there is none: a read costs the server a tenth of a claim. */
  begin(): void {
    if (this.#refresh) return this.claim()
    this.#state = 'reading'
    const { store, unavailableAfter } = this.#leader.locker
    store
      .find(this.record, { within: unavailableAfter }, () => this.sending())
      .then(this.#found, this.#unread)
  }

  readonly #found = (outcome: Outcome | undefined): void => {
    if (this.#state !== 'reading') return
    if (this.waiters.size === 0) return this.#over()
    if (!outcome || outcome.fence <= this.#after) return this.claim()
    this.claimed({ status: 'done', outcome }, this.#attempt)
  }

  readonly #unread = (error: unknown): void => {
    if (this.#state === 'reading') this.#refuse(error)
  }

  /** Asks the store to be the processor, or for what there is. */
  claim(): void {
    this.#look?.cancel()
    this.#state = 'claiming'
    this.#hinted = false
    const { store, unavailableAfter } = this.#leader.locker
    const claim = {
      key: this.record,
      nonce: this.nonce,
      attempt: ++this.#attempt,
      lease: this.#leader.lease,
      after: this.#after,
      parked: this.#parkedUnder,
      refresh: this.#refresh,
      // Of those who wait behind a dead holder, some may not replace it: then they are to be told.
      takeover: this.#parkedUnder === 0 || [...this.waiters].every(({ call }) => call.locker.takeover),
      tolerance: ANY_AGE,
      serve: this.#patient ? 0 : this.#leader.staleWhileRevalidate,
      pass: !this.#stubborn,
      only: 0,
      trace: traceOf(this.#leader),
    }
    store.claim(claim, unavailableAfter, this)
  }

  sending(): void {
    this.#delivery.sending()
    this.#tags.sending()
    this.#table.sent(this)
  }

  #awaits(attempt: number): boolean {
    return (this.#state === 'reading' || this.#state === 'claiming') && attempt === this.#attempt
  }

  unclaimed(error: unknown, attempt: number): void {
    if (this.#awaits(attempt)) this.#refuse(error)
    else this.#deafen()
  }

  claimed(reply: ClaimReply, attempt: number): void {
    if (!this.#awaits(attempt)) return this.#decline(reply, attempt)
    if (this.#tags.concerns(reply)) void this.#receiveTagged(reply, attempt)
    else this.#receive(reply, attempt)
  }

  /** What has tags is served only if none of them has begun a new epoch. */
  async #receiveTagged(reply: ClaimReply, attempt: number): Promise<void> {
    let holds: TagVerdict
    try {
      holds = await this.#tags.check(reply)
    } catch (error) {
      this.#decline(reply, attempt)
      if (!this.#awaits(attempt)) return
      if (reply.status === 'parked') this.#unpark()
      return this.#refuse(error)
    }
    if (!this.#awaits(attempt)) return this.#decline(reply, attempt)
    if (!holds.outcome && reply.status === 'done') return this.#askAfter(reply.outcome.fence)
    if (!holds.offer && reply.status === 'stale') return this.#askAfter(reply.offer.fence)
    if (!holds.offer && reply.status !== 'stale') this.#receive({ ...reply, offer: undefined }, attempt)
    else this.#receive(reply, attempt)
  }

  /** What was begun under a grant up to `fence` is not wanted any more. */
  #askAfter(fence: number): void {
    this.#after = Math.max(this.#after, fence)
    this.#parkedUnder = 0
    this.claim()
  }

  /** The reply to a claim that is no longer ours: what it brought is given back. */
  #decline(reply: ClaimReply, attempt: number): void {
    this.#deafen()
    const waits = this.#state !== 'processing' && this.#state !== 'closed'
    if (reply.status === 'granted') this.#giveBack(attempt, reply.fence)
    // A place that nobody looks after would swallow the hint of a release.
    else if (reply.status === 'parked' && !waits) this.#unpark()
  }

  /** Every claim that goes out listens anew, also one that went out after the flight was over. */
  #deafen(): void {
    if (this.#state === 'closed') this.#leader.locker.store.ignore(this.nonce)
  }

  #receive(reply: ClaimReply, attempt: number): void {
    const { counters } = this.#leader.locker
    // What was offered before is over for good, or invalidated, if it is not offered again.
    if (reply.offer) this.#delivery.offer(reply.offer)
    else this.waiters.withdraw(Number.MAX_SAFE_INTEGER)
    switch (reply.status) {
      case 'done':
        if (!reply.outcome.doomed) this.vouch(this.#delivery.sentSeq)
        this.#finish(reply.outcome, this.#delivery.sentAt, 'reply')
        break
      case 'stale':
        this.vouch(this.#delivery.sentSeq)
        this.#delivery.cacheStale(reply.offer)
        this.#serveStale()
        // The others wait for what is new, unless they came while this claim was under way.
        this.#patient = this.waiters.latecomers().length === 0
        if (this.waiters.size > 0) this.claim()
        else this.#over()
        break
      case 'pass':
        this.#pass(reply.fence)
        break
      case 'granted':
        counters.grants++
        if (reply.takeover) counters.takeovers++
        emit('grant', { key: this.key, fence: reply.fence, takeover: reply.takeover })
        this.vouch(this.#delivery.sentSeq)
        this.#parkedUnder = 0
        this.#hold(attempt, reply.fence, this.#delivery.sentAt)
        this.#renew()
        break
      case 'parked':
        counters.parks++
        this.vouch(this.#delivery.sentSeq)
        this.#park(reply)
        break
      case 'abandoned':
        this.#afterDeath()
        break
      case 'overloaded':
        this.#rejectAll((key) => new OverloadedError('Too many wait for this key already', { key }))
        break
      case 'refused':
        this.#refuse(new UnavailableError('Redis gave an answer that is none', { key: this.key }))
        break
      case 'exhausted': {
        const message = `The record ${shown(this.record)} of ${shown(this.key)} can grant no more: no number above its fence is exact. Delete it`
        this.#refuse(new UnavailableError(message, { key: this.key }))
      }
    }
  }

  /** What is over goes to those who are content with it while it is renewed. Whether anybody was. */
  #serveStale(): boolean {
    const before = this.#renews
    // Who is served leaves: the work is wanted all the same.
    this.#renews = true
    const served = this.waiters.serveWhileRevalidating()
    this.#renews = before || (served && this.#state === 'processing')
    return served
  }

  /** What is over was served on the promise that it is renewed, to all who may have it. */
  #renew(): void {
    if (!this.#serveStale()) return
    const late = this.waiters.latecomers()
    if (late.length > 0) this.#table.askAnew(this, late)
  }

  /** The store tells whether it may: in the reply to a claim of its own, if this flight will not claim. */
  doubted(waiter: Waiter): void {
    if (this.#state === 'parked') this.claim()
    else if (this.#state === 'processing') this.#table.askAnew(this, [waiter])
  }

  /** Nobody waits for anybody: each runs its own work. Who wants a lease waits for that. */
  #pass(fence: number): void {
    for (const waiter of this.waiters) {
      if (!waiter.call.work) continue
      this.waiters.release(waiter)
      this.#table.pass(waiter, fence, this.waiters.stale)
    }
    this.#stubborn = true
    if (this.waiters.size > 0) return this.claim()
    this.#over()
    if (this.#parkedUnder > 0) this.#unpark()
  }

  /** Runs the work of its only waiter, beside all others. */
  goAlone(waiter: Waiter, fence: number, stale: StaleResult | undefined): void {
    this.waiters.add(waiter)
    if (stale) this.waiters.offer({ ...stale, seq: this.seq })
    this.#passed = fence
    this.#delivery.sending()
    this.#hold(this.#attempt, 0, this.#leader.locker.clock.now())
  }

  /** The processor died, and some of those who wait here would not replace it: the others go on. */
  #afterDeath(): void {
    this.#rejectStaying('The processor died, and takeover is off')
    if (this.waiters.size > 0) this.claim()
    else this.#leave()
  }

  /** Rejects those who do not replace a processor that is lost. */
  #rejectStaying(message: string): void {
    for (const waiter of this.waiters) {
      const { key, locker } = waiter.call
      if (!locker.takeover) waiter.reject(new LockTimeoutError(message, { key }))
    }
  }

  #park(reply: ClaimReply & { status: 'parked' }): void {
    const { store, clock } = this.#leader.locker
    emit('park', { key: this.key, fence: reply.fence, trace: reply.trace || undefined })
    this.#refresh = false
    this.#after = reply.after
    this.#parkedUnder = reply.fence
    this.#state = 'parked'
    if (this.waiters.size === 0) return this.#leave()
    // What is shown of a work whose outcome is not for those who wait here is not for them either.
    this.waiters.catchUp(reply.after < reply.fence ? reply.progress : undefined)
    if (this.#hinted) return this.claim()
    this.#serveStale()
    for (const { call } of this.waiters) call.batch?.answered(call.key)
    if (this.#state !== 'parked') return
    this.#leaseEnd = clock.now() + reply.left
    this.#lookAfter(store.subscribed ? reply.left : Math.min(reply.left, LOOK_WHILE_DEAF))
  }

  #lookAfter(ms: number): void {
    this.#look?.cancel()
    this.#look = this.#leader.locker.clock.after(ms + 1 + Math.random() * JITTER, () => this.claim())
  }

  /** A grant that nobody wants any more. If this fails, the lease ends by itself. */
  #giveBack(attempt: number, fence: number): void {
    const { locker, lease } = this.#leader
    const release = {
      key: this.record,
      nonce: this.nonce,
      attempt,
      fence,
      linger: outcomeRetention(lease),
      expired: false,
      next: undefined,
    }
    this.#table.track(locker.store.release(release, { within: locker.unavailableAfter }).catch(() => {}))
  }

  #unpark(): void {
    const { store, unavailableAfter } = this.#leader.locker
    this.#table.track(store.unpark(this.record, this.nonce, { within: unavailableAfter }).catch(() => {}))
  }

  #refuse(error: unknown): void {
    const { counters } = this.#leader.locker
    if (!(error instanceof OverloadedError)) counters.unavailable++
    if (!(error instanceof UnavailableError)) return this.#rejectAll(errorFor(error))
    this.waiters.serveLastKnown()
    this.waiters.rejectSharing(error)
    if (this.waiters.size > 0) this.#hold(this.#attempt, 0, this.#leader.locker.clock.now())
    else this.#over()
  }

  /** Hands the grant to the first waiter; without one, back. */
  #hold(attempt: number, fence: number, sentAt: number): void {
    const { first } = this.waiters
    if (!first) {
      if (fence > 0) this.#giveBack(attempt, fence)
      return this.#over()
    }
    const shared = fence > 0
    const { locker, lease } = this.#leader
    if (shared && locker.clock.now() >= sentAt + lease - lossMargin(lease)) {
      // The reply took as long as the lease: somebody else may have it by now.
      warnOnce(
        'SOLOFLIGHT_LEASE_TOO_SHORT',
        `Redis took longer to grant a lease of ${lease} ms than it lasts: no work can begin under it`,
      )
      this.#giveBack(attempt, fence)
      return this.claim()
    }
    const { call } = first
    const unavailable = !shared && this.#passed === undefined
    if (unavailable && call.locker.unshared.size >= call.maxUnshared) {
      return this.#rejectAll(
        (key) => new OverloadedError('Redis is away, and enough works run without it', { key }),
      )
    }
    this.#state = 'processing'
    this.waiters.catchUp(undefined)
    if (!shared) this.#goUnshared(call)
    this.#granted = Math.max(this.#granted, fence)
    const grant = { attempt, fence, sentAt, lease, shared, unavailable, epochs: this.#tags.epochs }
    const held = new HeldLease(call, grant, this)
    this.#held = held
    if (call.batch) {
      call.batch.granted(held, this)
    } else if (call.work) {
      performWork(call.work, held, this)
    } else {
      first.grant(new Lease(held))
    }
  }

  notice(notice: Notice): void {
    if (notice.kind === 'probe') return
    if (notice.kind === 'unwanted') return this.#abandon()
    if (this.#state !== 'parked' && this.#state !== 'claiming') return
    if (notice.kind === 'progress') {
      if (this.#parkedUnder > this.#after) this.showProgress(notice.bytes)
      // The reply to the claim was made before this progress, and does not hold it: the flight claims once more.
      else if (this.#state === 'claiming') this.#hinted = true
    } else if (notice.kind === 'outcome' && this.#waitsFor(notice.outcome)) this.#hear(notice.outcome)
    else this.lookAgain()
  }

  /** What was parked for has come: unless one of its tags has begun a new epoch since its work began. */
  #hear(outcome: Outcome): void {
    const holds = this.#tags.judge(outcome)
    if (holds === undefined) this.lookAgain()
    else if (holds) this.#finish(outcome, this.#delivery.sentAt, 'message')
    else this.#askAfter(outcome.fence)
  }

  /** Whether it is what was parked for. A message may overtake the reply that would have said what to wait for. */
  #waitsFor({ fence }: Outcome): boolean {
    return this.#parkedUnder > 0 && fence >= this.#parkedUnder && fence > this.#after
  }

  showProgress(bytes: Buffer): void {
    this.waiters.showProgress(bytes)
  }

  settled(outcome: Outcome, sentSeq: number, sentAt: number, original: unknown): void {
    if (this.#state === 'closed' || this.#isPast(outcome)) return
    // What is not shared (fence 0) no invalidation can concern.
    this.vouch(outcome.fence === 0 ? this.seq : outcome.doomed ? 0 : sentSeq)
    this.#keepPassed(outcome)
    this.#finish(outcome, sentAt, 'work', original)
  }

  /** What a work beside others brought is kept after all, if it is to be, and nothing was invalidated meanwhile. */
  #keepPassed({ kind, bytes }: Outcome): void {
    const held = this.#held
    if (this.#passed === undefined || !held || kind === 'error' || held.resultPolicy.bypassFor !== undefined)
      return
    if (!this.#delivery.undisturbed || held.call.tags.length > 0) return
    const { call, resultPolicy: terms } = held
    const kept = { ttl: terms.ttl ?? call.ttl, stale: call.keepStale, tags: '' }
    this.#table.track(storeUnclaimed(call, bytes, kept, this.#passed).catch(() => {}))
  }

  /** Whether it comes from a holding that was lost, after which the flight has gone on to something newer. */
  #isPast({ fence }: Outcome): boolean {
    if (fence === this.#held?.grant.fence) return false
    return fence > 0 && (fence <= this.#after || fence < Math.max(this.#awaited, this.#granted))
  }

  /** Gives the outcome to everybody who is entitled to it; the others ask anew. `keptFrom`: its ttl counts from there. */
  #finish(outcome: Outcome, keptFrom: number, from: 'reply' | 'message' | 'work', original?: unknown): void {
    let reading: Reading | undefined
    try {
      if (outcome.kind === 'value') reading = this.#delivery.read(outcome, keptFrom)
    } catch (error) {
      // What was computed here, and cannot be read here, would not be better the next time.
      if (from === 'work') return this.#rejectAll(() => error)
      // Only the record tells what to compute anew: a message may be forged.
      return from === 'message' ? this.lookAgain() : this.#overwrite(outcome)
    }
    if (from === 'reply') this.#countHit()
    this.#held = undefined
    const entitled = this.waiters.entitled()
    const asksAnew = entitled.length < this.waiters.size
    if (!asksAnew) this.#over()
    if (outcome.kind === 'error') {
      this.waiters.serveInsteadOfError()
      giveFailure(entitled, outcome, this.key, original)
    } else if (reading) this.#delivery.give(entitled, outcome, reading, keptFrom)
    if (asksAnew) this.#askAnew(outcome)
  }

  #countHit(): void {
    this.#leader.locker.counters.hits++
    if (hasListeners('hit')) emit('hit', { key: this.key, local: false })
  }

  /** What another codec wrote is none for those who wait here: one of them computes it anew, at most once. */
  #overwrite({ fence }: Outcome): void {
    countUndecodable(this.#leader.locker.counters, this.key, fence)
    this.#askAfter(fence)
  }

  /** What may still be read by those who were parked for it answers those who are left, unless it was invalidated. */
  #askAnew(outcome: Outcome): void {
    if (outcome.doomed) this.#after = Math.max(this.#after, outcome.fence)
    // What is fresh is served to anybody: asked for as by one who was parked, it might be something that was not kept.
    this.#parkedUnder = outcome.doomed || outcome.fresh > 0 ? 0 : outcome.fence
    if (this.#parkedUnder > 0) return this.claim()
    // The reply to an earlier claim, should it still come, is not taken for that of this read.
    this.#attempt++
    this.begin()
  }

  /** The holding was lost: those who wait look for the successor, or are it. */
  lost(held: HeldLease): void {
    if (this.#held === held) this.#goOn()
  }

  /** The holding is given up: in one step to the next of our own waiters, or to whoever is parked. */
  async released(held: HeldLease, expired: boolean): Promise<void> {
    const { attempt, fence, shared } = held.grant
    if (expired && this.#held === held)
      this.#rejectStaying('The processor was let go at `maxHold`, and takeover is off')
    if (!shared) return this.lost(held)
    const { store, clock, unavailableAfter } = this.#leader.locker
    const { lease } = this.#leader
    const current = () => this.#held === held
    const next = current() && this.waiters.size > 0 ? { attempt: ++this.#attempt, lease } : undefined
    const sentAt = clock.now()
    const terms = { linger: outcomeRetention(lease), expired, next }
    const release = { key: this.record, nonce: this.nonce, attempt, fence, ...terms }
    const released = store.release(release, { within: unavailableAfter })
    this.#table.track(released.catch(() => {}))
    try {
      const reply = await released
      if (next && reply.fence !== undefined && current()) this.#hold(next.attempt, reply.fence, sentAt)
      else this.lost(held)
    } catch (error) {
      // It may have been granted all the same: the next claim repeats that attempt, so that it finds its own grant.
      if (next) this.#attempt = next.attempt - 1
      this.lost(held)
      throw error
    }
  }

  /** The work's outcome could not be published: it is for those of this process alone who would rather have that. */
  abandon(held: HeldLease, error: unknown, original: unknown): void {
    if (this.#held !== held) return
    const outcome = error instanceof UnavailableError ? held.unaccepted : undefined
    if (outcome) this.waiters.rejectSharing(error)
    if (!outcome || this.waiters.size === 0) return this.#rejectAll(errorFor(error))
    this.#goUnshared(held.call)
    this.settled(outcome, this.seq, 0, original)
  }

  #goUnshared({ locker }: JoinedCall): void {
    locker.counters[this.#passed === undefined ? 'unshared' : 'bypasses']++
    emit(this.#passed === undefined ? 'unshared' : 'bypass', { key: this.key })
  }

  #goOn(): void {
    // As behind any other that is lost: what it has settled after all is what was waited for.
    this.#parkedUnder = this.#held?.grant.fence ?? 0
    this.#held = undefined
    if (this.waiters.size > 0) this.claim()
    else this.#over()
  }

  /** A waiter has left. What runs here runs on; what was only waited for is given up with the last waiter. */
  left(): void {
    this.#table.left()
    if (this.waiters.size > 0) return
    if (this.#state === 'parked') this.#leave()
    else this.#abandon()
  }

  /** Nobody in this process waits for its work any more. */
  #abandon(): void {
    if (this.unwanted) this.#held?.abandon()
  }

  /** Nobody waits any more: the place on the record is given up. */
  #leave(): void {
    this.#over()
    this.#unpark()
  }

  #rejectAll(error: (key: string) => unknown): void {
    this.#over()
    if (this.#parkedUnder > 0) this.#unpark()
    this.waiters.reject(error)
  }

  #over(): void {
    this.#state = 'closed'
    this.#held = undefined
    this.#look?.cancel()
    this.#deafen()
    this.#table.remove(this)
    this.#landed?.resolve()
  }
}

/** The trace context that the user's hook returns, if it returns one. */
function traceOf({ locker, context }: JoinedCall): string {
  const trace: unknown = locker.trace && callHook(context, 'trace', locker.trace)
  return typeof trace === 'string' ? trace.slice(0, MAX_TRACE) : ''
}
