import pDefer, { type DeferredPromise } from 'p-defer'
import { LockTimeoutError, OverloadedError, UnavailableError } from '../../errors.ts'
import { callHook } from '../../kernel/hooks.ts'
import { newId } from '../../kernel/keys.ts'
import { shown } from '../../kernel/options.ts'
import { emit, hasListeners, warnOnce } from '../../kernel/telemetry.ts'
import { lossMargin, type Timer } from '../../kernel/time.ts'
import { TagGuard, type TagVerdict } from '../cache/tag-guard.ts'
import type { JoinedCall } from '../call.ts'
import { Lease } from '../lease.ts'
import { countUndecodable } from '../locker-context.ts'
import { HeldLease } from '../processor/held-lease.ts'
import {
  type Grant,
  type HeldLeaseListener,
  outcomeRetention,
  type Regrant,
  type Settled,
} from '../processor/lease-state.ts'
import { performWork } from '../processor/work-runner.ts'
import { ANY_STALENESS, type Claimer, type ClaimReply, type Notice, type Outcome } from '../store/store.ts'
import type { WaitNode } from '../work.ts'
import { storeUnclaimed } from './bypass.ts'
import { type Reading, ResultDelivery } from './result-delivery.ts'
import type { Waiter } from './waiter.ts'
import {
  errorFor,
  rejectWithFailure,
  type StaleResult,
  WaiterSet,
  type WaiterSetEvents,
} from './waiter-set.ts'

/** The table that a flight is in, as far as the flight tells it how things went. */
export interface FlightEvents {
  /** Its claim goes out now. */
  onClaimSent(flight: Flight): void
  /** Nobody can join it any more. */
  seal(flight: Flight): void
  /** It is over. */
  onClosed(flight: Flight): void
  /** Waiters of it ask for themselves; nobody joins it any more. */
  moveToNewFlight(flight: Flight, waiters: readonly Waiter[]): void
  /** A waiter of it runs its own work, beside all others. `fence`: the last one. */
  bypass(waiter: Waiter, fence: number, stale: StaleResult | undefined): void
  /** Counts the tags that were heard to have begun a new epoch. */
  readonly tagDrops: number
  /** One of its waiters waits no longer. */
  onWaiterLeft(): void
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
const POLL_JITTER = 25

/** Longest trace context that is kept, in characters. */
const MAX_TRACE = 512

/** How often a parked flight looks while no messages arrive, ms. */
const POLL_WHILE_DISCONNECTED = 500

/**
 * The callers of one key in this process, who share one claim. Whoever waits here waits for the same outcome; the first
 * becomes the processor when the claim is granted, and the next when that one gives up.
 *
 * Only what comes from the store moves it: replies and notices. Notices are hints: a parked flight also looks by itself
 * when the lease of the processor ends, and whenever messages may have been missed.
 */
export class Flight implements Claimer, HeldLeaseListener, WaiterSetEvents {
  readonly key: string
  readonly record: string
  readonly nonce: string = newId()
  waitsFor: Map<WaitNode, number> | undefined
  readonly #events: FlightEvents
  /** How it claims: by the options of the call that began it. */
  readonly #leader: JoinedCall
  readonly waiters: WaiterSet
  readonly #delivery: ResultDelivery
  readonly #tagGuard: TagGuard
  #state: State = 'reading'
  #attempt = 0
  /** Only what was begun under a grant above this fence is wanted. */
  #afterFence = 0
  /** The fence that we are, or were last, parked under. */
  #parkedFence = 0
  #refresh: boolean
  /** While a claim was under way there was a reason to claim again. */
  #hinted = false
  #pollTimer: Timer | undefined
  /** When the lease of the one we are parked behind ends, as far as we were told. */
  #leaseEndsAt = 0
  #held: HeldLease | undefined
  /** The last fence that it was granted. */
  #grantedFence = 0
  /** What is over was served on the promise that it is renewed. */
  #revalidating = false
  /** Whoever is left waits for what is new. */
  #acceptsOnlyFresh = false
  /** Not to be told to go alone. */
  #rejectsBypass: boolean
  /** Its work runs beside others; the last fence then. */
  #bypassFence: number | undefined
  #closing: DeferredPromise<void> | undefined

  constructor(leader: JoinedCall, events: FlightEvents) {
    this.key = leader.key
    this.record = leader.record
    this.waiters = new WaiterSet(leader.key, this)
    this.#delivery = new ResultDelivery(leader, this.waiters, () => events.tagDrops)
    this.#tagGuard = new TagGuard(leader)
    this.#leader = leader
    this.#events = events
    this.#refresh = leader.refresh
    this.#afterFence = leader.afterFence
    // Who is granted a lease must hold one.
    this.#rejectsBypass = !leader.work
  }

  get seq(): number {
    return this.waiters.seq
  }

  get isClosed(): boolean {
    return this.#state === 'closed'
  }

  /** This process computes it. */
  get isProcessing(): boolean {
    return this.#state === 'processing'
  }

  /** It does so for itself alone. */
  get isUnshared(): boolean {
    return this.#held?.shared === false
  }

  /** Nobody waits for it, and it is not to be renewed for those who come either. */
  get hasNoWaiters(): boolean {
    return this.waiters.size === 0 && !this.#revalidating
  }

  get shouldCancel(): boolean {
    return this.hasNoWaiters && this.#held?.call.abortUnwanted === true
  }

  /** Others are served what is over meanwhile. */
  get isRevalidating(): boolean {
    return this.#revalidating
  }

  /** Whether its results have all the tags that a caller's would have. */
  hasTags(tags: readonly string[]): boolean {
    return tags.every((tag) => this.#tagGuard.has(tag))
  }

  /** Whether what it will bring is begun under a grant above `fence`, as far as is known. */
  mayYieldAbove(fence: number): boolean {
    return fence <= this.#afterFence || this.#awaitedFence > fence
  }

  /** The store is being asked, and nobody waits for what it will bring. */
  get isOrphanClaim(): boolean {
    return (this.#state === 'reading' || this.#state === 'claiming') && this.waiters.size === 0
  }

  /** Resolves when it is over. */
  closed(): Promise<void> {
    if (this.isClosed) return Promise.resolve()
    this.#closing ??= pDefer()
    return this.#closing.promise
  }

  /** Adds a waiter. The table does so before the first claim and as long as the flight can be joined. */
  add(waiter: Waiter): void {
    this.waiters.add(waiter)
    const renewed = this.#state === 'processing' || this.#state === 'parked'
    if (renewed) this.#serveStale()
  }

  validate(seq: number): void {
    // Of its tags nothing has been heard since its claim went out.
    if (this.#state === 'processing' && this.#tagGuard.versions.size > 0) return
    this.waiters.validate(seq)
  }

  /** An invalidation, the first of the grant `fence`, came after the waiter `seq`. */
  validateGrant(fence: number, seq: number): void {
    if (fence === this.#awaitedFence) this.validate(seq)
  }

  /** The grant whose outcome is waited for; 0 when none can be named. */
  get #awaitedFence(): number {
    return this.#held?.grant.fence ?? this.#parkedFence
  }

  onInvalidated(): void {
    this.#events.seal(this)
  }

  /** What was accepted up to `fence` is no longer to be served: whether new callers must not join. */
  invalidateUpTo(fence: number): boolean {
    this.#delivery.onInvalidated()
    this.waiters.dropStale(fence)
    // Without a grant to name yet (0), what its claim will bring may be older than the invalidation.
    return this.#awaitedFence <= fence
  }

  /** A tag has begun a new epoch: whether new callers must not join. */
  invalidateTag(tag: string): boolean {
    if (!this.#tagGuard.has(tag) && !this.waiters.stale?.tags.includes(tag)) return false
    this.#delivery.onInvalidated()
    this.waiters.dropStale(Number.MAX_SAFE_INTEGER)
    return true
  }

  /** Messages may have been missed, and may be from now on. */
  onSubscriptionLost(): void {
    this.#delivery.onInvalidated()
    if (this.#state === 'parked')
      this.#pollAfter(Math.min(POLL_WHILE_DISCONNECTED, this.#leaseEndsAt - this.#leader.locker.clock.now()))
  }

  /** Messages arrive again. */
  poll(): void {
    if (this.#state === 'parked') this.claim()
    else this.#hinted = true
    // Redis is back: what is made for this process alone is no longer for those who come now.
    if (this.isUnshared) this.#events.seal(this)
  }

  /** Reads the value, and claims if there is none: a read costs the server a tenth of a claim. */
  begin(): void {
    if (this.#refresh) return this.claim()
    this.#state = 'reading'
    const { store, unavailableAfter } = this.#leader.locker
    store
      .readFresh(this.record, { within: unavailableAfter }, () => this.sending())
      .then(this.#onFound, this.#onReadFailed)
  }

  readonly #onFound = (outcome: Outcome | undefined): void => {
    if (this.#state !== 'reading') return
    if (this.waiters.size === 0) return this.#close()
    if (!outcome || outcome.fence <= this.#afterFence) return this.claim()
    this.claimed({ status: 'done', outcome }, this.#attempt)
  }

  readonly #onReadFailed = (error: unknown): void => {
    if (this.#state === 'reading') this.#onUnavailable(error)
  }

  /** Asks the store to be the processor, or for what there is. */
  claim(): void {
    this.#pollTimer?.cancel()
    this.#state = 'claiming'
    this.#hinted = false
    const { store, unavailableAfter } = this.#leader.locker
    const claim = {
      key: this.record,
      nonce: this.nonce,
      attempt: ++this.#attempt,
      lease: this.#leader.lease,
      afterFence: this.#afterFence,
      parkedFence: this.#parkedFence,
      refresh: this.#refresh,
      // Of those who wait behind a dead holder, some may not replace it: then they are to be told.
      takeover: this.#parkedFence === 0 || [...this.waiters].every(({ call }) => call.locker.takeover),
      maxStaleness: ANY_STALENESS,
      acceptStaleWhileHeld: this.#acceptsOnlyFresh ? 0 : this.#leader.staleWhileRevalidate,
      allowBypass: !this.#rejectsBypass,
      expectedFence: 0,
      trace: traceOf(this.#leader),
    }
    store.claim(claim, unavailableAfter, this)
  }

  sending(): void {
    this.#delivery.onClaimSent()
    this.#tagGuard.sending()
    this.#events.onClaimSent(this)
  }

  #expectsReplyTo(attempt: number): boolean {
    return (this.#state === 'reading' || this.#state === 'claiming') && attempt === this.#attempt
  }

  claimFailed(error: unknown, attempt: number): void {
    if (this.#expectsReplyTo(attempt)) this.#onUnavailable(error)
    else this.#stopListening()
  }

  claimed(reply: ClaimReply, attempt: number): void {
    if (!this.#expectsReplyTo(attempt)) return this.#rejectLateReply(reply, attempt)
    if (this.#tagGuard.needsCheck(reply)) void this.#receiveTagged(reply, attempt)
    else this.#receive(reply, attempt)
  }

  /** What has tags is served only if none of them has begun a new epoch. */
  async #receiveTagged(reply: ClaimReply, attempt: number): Promise<void> {
    let verdict: TagVerdict
    try {
      verdict = await this.#tagGuard.check(reply)
    } catch (error) {
      this.#rejectLateReply(reply, attempt)
      if (!this.#expectsReplyTo(attempt)) return
      if (reply.status === 'parked') this.#unpark()
      return this.#onUnavailable(error)
    }
    if (!this.#expectsReplyTo(attempt)) return this.#rejectLateReply(reply, attempt)
    if (!verdict.outcome && reply.status === 'done') return this.#reclaimAbove(reply.outcome.fence)
    if (!verdict.stale && reply.status === 'stale') return this.#reclaimAbove(reply.stale.fence)
    if (!verdict.stale && reply.status !== 'stale') this.#receive({ ...reply, stale: undefined }, attempt)
    else this.#receive(reply, attempt)
  }

  /** What was begun under a grant up to `fence` is not wanted any more. */
  #reclaimAbove(fence: number): void {
    this.#afterFence = Math.max(this.#afterFence, fence)
    this.#parkedFence = 0
    this.claim()
  }

  /** The reply to a claim that is no longer ours: what it brought is given back. */
  #rejectLateReply(reply: ClaimReply, attempt: number): void {
    this.#stopListening()
    const waits = this.#state !== 'processing' && this.#state !== 'closed'
    if (reply.status === 'granted') this.#releaseGrant(attempt, reply.fence)
    // A place that nobody looks after would swallow the hint of a release.
    else if (reply.status === 'parked' && !waits) this.#unpark()
  }

  /** Every claim that goes out listens anew, also one that went out after the flight was over. */
  #stopListening(): void {
    if (this.#state === 'closed') this.#leader.locker.store.ignore(this.nonce)
  }

  #receive(reply: ClaimReply, attempt: number): void {
    const { counters } = this.#leader.locker
    // What was offered before is over for good, or invalidated, if it is not offered again.
    if (reply.stale) this.#delivery.setStale(reply.stale)
    else this.waiters.dropStale(Number.MAX_SAFE_INTEGER)
    switch (reply.status) {
      case 'done':
        if (!reply.outcome.invalidated) this.validate(this.#delivery.sentSeq)
        this.#finish(reply.outcome, this.#delivery.sentAt, 'reply')
        break
      case 'stale':
        this.validate(this.#delivery.sentSeq)
        this.#delivery.cacheStale(reply.stale)
        this.#serveStale()
        // The others wait for what is new, unless they came while this claim was under way.
        this.#acceptsOnlyFresh = this.waiters.unvalidatedWaiters().length === 0
        if (this.waiters.size > 0) this.claim()
        else this.#close()
        break
      case 'bypass':
        this.#bypass(reply.fence)
        break
      case 'granted':
        counters.grants++
        if (reply.takeover) counters.takeovers++
        emit('grant', { key: this.key, fence: reply.fence, takeover: reply.takeover })
        this.validate(this.#delivery.sentSeq)
        this.#parkedFence = 0
        this.#process(attempt, reply.fence, this.#delivery.sentAt)
        this.#serveStaleOnGrant()
        break
      case 'parked':
        counters.parks++
        this.validate(this.#delivery.sentSeq)
        this.#park(reply)
        break
      case 'lease-expired':
        this.#onHolderDead()
        break
      case 'overloaded':
        this.#rejectAll((key) => new OverloadedError('Too many wait for this key already', { key }))
        break
      case 'conflict':
        this.#onUnavailable(new UnavailableError('Redis gave an answer that is none', { key: this.key }))
        break
      case 'exhausted': {
        const message = `The record ${shown(this.record)} of ${shown(this.key)} can grant no more: no number above its fence is exact. Delete it`
        this.#onUnavailable(new UnavailableError(message, { key: this.key }))
      }
    }
  }

  /** What is over goes to those who are content with it while it is renewed. Whether anybody was. */
  #serveStale(): boolean {
    const before = this.#revalidating
    // Who is served leaves: the work is wanted all the same.
    this.#revalidating = true
    const served = this.waiters.serveWhileRevalidating()
    this.#revalidating = before || (served && this.#state === 'processing')
    return served
  }

  /** What is over was served on the promise that it is renewed, to all who may have it. */
  #serveStaleOnGrant(): void {
    if (!this.#serveStale()) return
    const late = this.waiters.unvalidatedWaiters()
    if (late.length > 0) this.#events.moveToNewFlight(this, late)
  }

  /** The store tells whether it may: in the reply to a claim of its own, if this flight will not claim. */
  revalidateFor(waiter: Waiter): void {
    if (this.#state === 'parked') this.claim()
    else if (this.#state === 'processing') this.#events.moveToNewFlight(this, [waiter])
  }

  /** Nobody waits for anybody: each runs its own work. Who wants a lease waits for that. */
  #bypass(fence: number): void {
    for (const waiter of this.waiters) {
      if (!waiter.call.work) continue
      this.waiters.release(waiter)
      this.#events.bypass(waiter, fence, this.waiters.stale)
    }
    this.#rejectsBypass = true
    if (this.waiters.size > 0) return this.claim()
    this.#close()
    if (this.#parkedFence > 0) this.#unpark()
  }

  /** Runs the work of its only waiter, beside all others. */
  runBypassed(waiter: Waiter, fence: number, stale: StaleResult | undefined): void {
    this.waiters.add(waiter)
    if (stale) this.waiters.setStale({ ...stale, seq: this.seq })
    this.#bypassFence = fence
    this.#delivery.onClaimSent()
    this.#process(this.#attempt, 0, this.#leader.locker.clock.now())
  }

  /** The processor died, and some of those who wait here would not replace it: the others go on. */
  #onHolderDead(): void {
    this.#rejectWithoutTakeover('The processor died, and takeover is off')
    if (this.waiters.size > 0) this.claim()
    else this.#unparkAndClose()
  }

  /** Rejects those who do not replace a processor that is lost. */
  #rejectWithoutTakeover(message: string): void {
    for (const waiter of this.waiters) {
      const { key, locker } = waiter.call
      if (!locker.takeover) waiter.reject(new LockTimeoutError(message, { key }))
    }
  }

  #park(reply: ClaimReply & { status: 'parked' }): void {
    const { store, clock } = this.#leader.locker
    emit('park', { key: this.key, fence: reply.fence, trace: reply.trace || undefined })
    this.#refresh = false
    this.#afterFence = reply.afterFence
    this.#parkedFence = reply.fence
    this.#state = 'parked'
    if (this.waiters.size === 0) return this.#unparkAndClose()
    // What is shown of a work whose outcome is not for those who wait here is not for them either.
    this.waiters.replayProgress(reply.afterFence < reply.fence ? reply.progress : undefined)
    if (this.#hinted) return this.claim()
    this.#serveStale()
    for (const waiter of this.waiters) waiter.batch?.onClaimSettled(waiter.call.key)
    if (this.#state !== 'parked') return
    this.#leaseEndsAt = clock.now() + reply.leaseLeft
    this.#pollAfter(store.subscribed ? reply.leaseLeft : Math.min(reply.leaseLeft, POLL_WHILE_DISCONNECTED))
  }

  #pollAfter(ms: number): void {
    this.#pollTimer?.cancel()
    this.#pollTimer = this.#leader.locker.clock.after(ms + 1 + Math.random() * POLL_JITTER, () =>
      this.claim(),
    )
  }

  /** A grant that nobody wants any more. If this fails, the lease ends by itself. */
  #releaseGrant(attempt: number, fence: number): void {
    const { locker, lease } = this.#leader
    const release = {
      key: this.record,
      nonce: this.nonce,
      attempt,
      fence,
      outcomeRetention: outcomeRetention(lease),
      asExpired: false,
      regrant: undefined,
    }
    this.#events.track(locker.store.release(release, { within: locker.unavailableAfter }).catch(() => {}))
  }

  #unpark(): void {
    const { store, unavailableAfter } = this.#leader.locker
    this.#events.track(store.unpark(this.record, this.nonce, { within: unavailableAfter }).catch(() => {}))
  }

  #onUnavailable(error: unknown): void {
    const { counters } = this.#leader.locker
    if (!(error instanceof OverloadedError)) counters.unavailable++
    if (!(error instanceof UnavailableError)) return this.#rejectAll(errorFor(error))
    this.waiters.serveLastKnown()
    this.waiters.rejectUnlessUnshared(error)
    if (this.waiters.size > 0) this.#process(this.#attempt, 0, this.#leader.locker.clock.now())
    else this.#close()
  }

  /** Hands the grant to the first waiter; without one, back. */
  #process(attempt: number, fence: number, sentAt: number): void {
    const { first } = this.waiters
    if (!first) {
      if (fence > 0) this.#releaseGrant(attempt, fence)
      return this.#close()
    }
    const shared = fence > 0
    const { locker, lease } = this.#leader
    if (shared && locker.clock.now() >= sentAt + lease - lossMargin(lease)) {
      // The reply took as long as the lease: somebody else may have it by now.
      warnOnce(
        'SOLOFLIGHT_LEASE_TOO_SHORT',
        `Redis took longer to grant a lease of ${lease} ms than it lasts: no work can begin under it`,
      )
      this.#releaseGrant(attempt, fence)
      return this.claim()
    }
    const { call } = first
    const unavailable = !shared && this.#bypassFence === undefined
    if (unavailable && call.locker.unshared.size >= call.maxUnshared) {
      return this.#rejectAll(
        (key) => new OverloadedError('Redis is away, and enough works run without it', { key }),
      )
    }
    this.#state = 'processing'
    this.waiters.replayProgress(undefined)
    if (!shared) this.#countUnshared(call)
    this.#grantedFence = Math.max(this.#grantedFence, fence)
    const grant: Grant = {
      key: this.record,
      nonce: this.nonce,
      attempt,
      fence,
      sentAt,
      lease,
      outcomeRetention: outcomeRetention(lease),
      mode: shared ? 'shared' : unavailable ? 'local' : 'bypass',
      tagVersions: this.#tagGuard.versions,
    }
    const held = new HeldLease(call, grant, this)
    this.#held = held
    if (first.batch) {
      first.batch.onGranted(held)
    } else if (call.work) {
      performWork(call.work, held)
    } else {
      first.grant(new Lease(held))
    }
  }

  notice(notice: Notice): void {
    if (notice.kind === 'probe') return
    if (notice.kind === 'unwanted') return this.#releaseIfUnwanted()
    if (this.#state !== 'parked' && this.#state !== 'claiming') return
    if (notice.kind === 'progress') {
      if (this.#parkedFence > this.#afterFence) this.waiters.showProgress(notice.bytes)
      // The reply to the claim was made before this progress, and does not hold it: the flight claims once more.
      else if (this.#state === 'claiming') this.#hinted = true
    } else if (notice.kind === 'outcome' && this.#isAwaited(notice.outcome))
      this.#onOutcomeNotice(notice.outcome)
    else this.poll()
  }

  /** What was parked for has come: unless one of its tags has begun a new epoch since its work began. */
  #onOutcomeNotice(outcome: Outcome): void {
    const holds = this.#tagGuard.verify(outcome)
    if (holds === undefined) this.poll()
    else if (holds) this.#finish(outcome, this.#delivery.sentAt, 'message')
    else this.#reclaimAbove(outcome.fence)
  }

  /** Whether it is what was parked for. A message may overtake the reply that would have said what to wait for. */
  #isAwaited({ fence }: Outcome): boolean {
    return this.#parkedFence > 0 && fence >= this.#parkedFence && fence > this.#afterFence
  }

  onSettled(_grant: Grant, { outcome, sentSeq, sentAt, original }: Settled): void {
    if (this.#state === 'closed' || this.#isSuperseded(outcome)) return
    // What is not shared (fence 0) no invalidation can concern.
    this.validate(outcome.fence === 0 ? this.seq : outcome.invalidated ? 0 : sentSeq)
    this.#storeBypassed(outcome)
    this.#finish(outcome, sentAt, 'work', original)
  }

  /** What a work beside others brought is kept after all, if it is to be, and nothing was invalidated meanwhile. */
  #storeBypassed({ kind, bytes }: Outcome): void {
    const held = this.#held
    if (
      this.#bypassFence === undefined ||
      !held ||
      kind === 'error' ||
      held.resultPolicy.bypassFor !== undefined
    )
      return
    if (!this.#delivery.cacheable || held.call.tags.length > 0) return
    const { call, resultPolicy: terms } = held
    const kept = { ttl: terms.ttl ?? call.ttl, stale: call.keepStale, tags: '' }
    this.#events.track(storeUnclaimed(call, bytes, kept, this.#bypassFence).catch(() => {}))
  }

  /** Whether it comes from a holding that was lost, after which the flight has gone on to something newer. */
  #isSuperseded({ fence }: Outcome): boolean {
    if (fence === this.#held?.grant.fence) return false
    return (
      fence > 0 && (fence <= this.#afterFence || fence < Math.max(this.#awaitedFence, this.#grantedFence))
    )
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
      return from === 'message' ? this.poll() : this.#recompute(outcome)
    }
    if (from === 'reply') this.#countHit()
    this.#held = undefined
    const entitled = this.waiters.entitled()
    const reclaims = entitled.length < this.waiters.size
    if (!reclaims) this.#close()
    if (outcome.kind === 'error') {
      this.waiters.serveInsteadOfError()
      rejectWithFailure(entitled, outcome, this.key, original)
    } else if (reading) this.#delivery.deliver(entitled, outcome, reading, keptFrom)
    if (reclaims) this.#reclaim(outcome)
  }

  #countHit(): void {
    this.#leader.locker.counters.hits++
    if (hasListeners('hit')) emit('hit', { key: this.key, local: false })
  }

  /** What another codec wrote is none for those who wait here: one of them computes it anew, at most once. */
  #recompute({ fence }: Outcome): void {
    countUndecodable(this.#leader.locker.counters, this.key, fence)
    this.#reclaimAbove(fence)
  }

  /** What may still be read by those who were parked for it answers those who are left, unless it was invalidated. */
  #reclaim(outcome: Outcome): void {
    if (outcome.invalidated) this.#afterFence = Math.max(this.#afterFence, outcome.fence)
    // What is fresh is served to anybody: asked for as by one who was parked, it might be something that was not kept.
    this.#parkedFence = outcome.invalidated || outcome.ttlLeft > 0 ? 0 : outcome.fence
    if (this.#parkedFence > 0) return this.claim()
    // The reply to an earlier claim, should it still come, is not taken for that of this read.
    this.#attempt++
    this.begin()
  }

  /** The waiters look for the next processor, or become it. */
  onLeaseLost(grant: Grant): void {
    if (this.#held?.grant === grant) this.#claimAgain()
  }

  /** Grants anew to the next of the own waiters. */
  onReleasing(grant: Grant, asExpired: boolean): Regrant | undefined {
    if (this.#held?.grant !== grant) return undefined
    if (asExpired) this.#rejectWithoutTakeover('The processor was let go at `maxHold`, and takeover is off')
    const regrants = grant.mode === 'shared' && this.waiters.size > 0
    return regrants ? { attempt: ++this.#attempt, lease: grant.lease } : undefined
  }

  onReleased(grant: Grant, regranted: Pick<Grant, 'attempt' | 'fence' | 'sentAt'> | undefined): void {
    if (!regranted) return this.onLeaseLost(grant)
    const { attempt, fence, sentAt } = regranted
    if (this.#held?.grant === grant) this.#process(attempt, fence, sentAt)
    else this.#releaseGrant(attempt, fence)
  }

  /** It may have been granted anew all the same: the next claim repeats that attempt, and finds its own grant. */
  onReleaseFailed(grant: Grant, regrant: Regrant | undefined): void {
    if (regrant) this.#attempt = regrant.attempt - 1
    this.onLeaseLost(grant)
  }

  onRequest(reply: Promise<unknown>): void {
    this.#events.track(reply)
  }

  onRenewing(): void {
    this.#releaseIfUnwanted()
  }

  onRenewed(sentSeq: number): void {
    this.validate(sentSeq)
  }

  onProgress(bytes: Buffer): void {
    this.waiters.showProgress(bytes)
  }

  /** The outcome is for the waiters who accept one of this process alone. */
  onUnpublished(grant: Grant, error: unknown, outcome: Outcome | undefined, original: unknown): void {
    const held = this.#held
    if (held?.grant !== grant) return
    if (outcome) this.waiters.rejectUnlessUnshared(error)
    if (!outcome || this.waiters.size === 0) return this.#rejectAll(errorFor(error))
    this.#countUnshared(held.call)
    this.onSettled(grant, { outcome, sentSeq: this.seq, sentAt: 0, original })
  }

  #countUnshared({ locker }: JoinedCall): void {
    locker.counters[this.#bypassFence === undefined ? 'unshared' : 'bypasses']++
    emit(this.#bypassFence === undefined ? 'unshared' : 'bypass', { key: this.key })
  }

  #claimAgain(): void {
    // As behind any other that is lost: what it has settled after all is what was waited for.
    this.#parkedFence = this.#held?.grant.fence ?? 0
    this.#held = undefined
    if (this.waiters.size > 0) this.claim()
    else this.#close()
  }

  /** A waiter has left. What runs here runs on; what was only waited for is given up with the last waiter. */
  onWaiterLeft(): void {
    this.#events.onWaiterLeft()
    if (this.waiters.size > 0) return
    if (this.#state === 'parked') this.#unparkAndClose()
    else this.#releaseIfUnwanted()
  }

  /** Nobody in this process waits for its work any more. */
  #releaseIfUnwanted(): void {
    if (this.shouldCancel) this.#held?.releaseIfUnwanted()
  }

  /** Nobody waits any more: the place on the record is given up. */
  #unparkAndClose(): void {
    this.#close()
    this.#unpark()
  }

  #rejectAll(error: (key: string) => unknown): void {
    this.#close()
    if (this.#parkedFence > 0) this.#unpark()
    this.waiters.reject(error)
  }

  #close(): void {
    this.#state = 'closed'
    this.#held = undefined
    this.#pollTimer?.cancel()
    this.#stopListening()
    this.#events.onClosed(this)
    this.#closing?.resolve()
  }
}

/** The trace context that the user's hook returns, if it returns one. */
function traceOf({ locker, context }: JoinedCall): string {
  const trace: unknown = locker.trace && callHook(context, 'trace', locker.trace)
  return typeof trace === 'string' ? trace.slice(0, MAX_TRACE) : ''
}
