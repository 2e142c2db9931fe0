import { OverloadedError } from '../../errors.ts'
import { remoteError } from '../../kernel/codec/failure.ts'
import { assertTransition } from '../../kernel/collections.ts'
import type { WaitNode } from '../../kernel/work-scheduler.ts'
import type { Call, DecodedResult, JoinedCall } from '../call.ts'
import { Lease } from '../lease.ts'
import { countHit, countUndecodable, countUnshared } from '../locker-context.ts'
import { HeldLease } from '../processor/held-lease.ts'
import type { Grant, HeldLeaseListener, Regrant, Settled } from '../processor/lease-state.ts'
import { isGrantedTooLate, performWork, storeBypassed } from '../processor/work-runner.ts'
import type { Outcome } from '../store/store.ts'
import { Claimant } from './claimant.ts'
import {
  ASKING,
  CLOSED,
  type ClaimantListener,
  FLIGHT_TRANSITIONS,
  type FlightState,
  Processing,
} from './flight-state.ts'
import {
  rejectUnlessUnshared,
  serveAfterSoftTimeout,
  serveInsteadOfError,
  serveWhileRevalidating,
  setStale,
  unvalidatedWaiters,
} from './stale-serving.ts'
import { errorFor, type StaleResult, type Waiter, WaiterSet, type WaiterSetListener } from './waiter-set.ts'

/** What the table of flights is told. */
export interface FlightListener {
  /** A request is sent. Its result may be older than calls made from now on. */
  onSent(flight: Flight): void
  /** New callers must not join. */
  onSealed(flight: Flight): void
  onClosed(flight: Flight): void
  onWaiterLeft(): void
  /** These waiters must ask the store in a flight of their own. */
  onUnvalidated(flight: Flight, waiters: readonly Waiter[]): void
  /** This waiter runs its own work in a flight of its own. `fence`: the last one. */
  onBypass(waiter: Waiter, fence: number, stale: StaleResult | undefined): void
}

/**
 * The callers of one key in this process that share one claim, and so one outcome. The first of them becomes the processor
 * when the claim is granted; if it gives up, the next. Its states are drawn in flight-state.ts.
 *
 * The table of flights creates it, adds the first waiter, and calls `begin` or `runBypassed` once.
 */
export class Flight implements ClaimantListener, HeldLeaseListener, WaiterSetListener {
  readonly key: string
  readonly record: string
  readonly waiters: WaiterSet
  waitsFor: Map<WaitNode, number> | undefined
  /** The call that began it: results are read and cached by its options. */
  readonly #leader: JoinedCall
  readonly #claimant: Claimant
  readonly #listener: FlightListener
  #state: FlightState = ASKING
  /** The last fence that it was granted. */
  #grantedFence = 0

  constructor(leader: JoinedCall, listener: FlightListener) {
    this.key = leader.key
    this.record = leader.record
    this.waiters = new WaiterSet(this)
    this.#leader = leader
    this.#claimant = new Claimant(leader, this.waiters, this)
    this.#listener = listener
  }

  get isProcessing(): boolean {
    return this.#state.kind === 'processing'
  }

  /** Its result is for this process alone. */
  get isUnshared(): boolean {
    return this.held?.shared === false
  }

  /** A request is under way, and no waiter is left. */
  get isOrphan(): boolean {
    return this.#claimant.isWaiting && this.waiters.size === 0
  }

  /**
   * Whether a call may join: the result will be new enough, as far as is known, have its tags, and be shared if it must. A
   * caller that will not renew the lease must be granted the one that it asked for.
   */
  suits({ afterFence, tags, requiresShared, kind, lease }: Call): boolean {
    if ((this.isUnshared && requiresShared) || (kind === 'token' && lease !== this.#leader.lease))
      return false
    const newEnough = afterFence <= this.#claimant.afterFence || this.awaitedFence > afterFence
    return newEnough && tags.every((tag) => this.#leader.tags.includes(tag))
  }

  get held(): HeldLease | undefined {
    return this.#state.kind === 'processing' ? this.#state.held : undefined
  }

  /** The grant whose outcome is waited for; 0: none is known. */
  get awaitedFence(): number {
    return this.held?.grant.fence ?? this.#claimant.awaitedFence
  }

  #move(to: FlightState): void {
    assertTransition('flight', FLIGHT_TRANSITIONS, this.#state.kind, to.kind)
    this.#state = to
  }

  /** Adds a waiter: before it begins, and as long as it is not sealed. */
  add(waiter: Waiter): void {
    this.waiters.add(waiter)
    const revalidating = this.isProcessing || this.#claimant.isParked
    if (revalidating && this.waiters.stale) serveWhileRevalidating(this.waiters, this.isProcessing)
  }

  begin(): void {
    this.#claimant.begin()
  }

  /** Instead of `begin`: runs the work of its only waiter, beside others of the key. `fence`: the last one. */
  runBypassed(fence: number, stale: StaleResult | undefined): void {
    const { clock, store } = this.#leader.locker
    if (stale) setStale(this.waiters, { ...stale, seq: this.waiters.lastSeq })
    this.waiters.onBegun(clock.now(), store.subscribed)
    this.#process('bypass', 0, 0, clock.now(), fence)
  }

  /** An invalidation, the first of the grant `fence`, came after the waiter `seq` had joined. */
  validateGrant(fence: number, seq: number): void {
    // The tag versions were last read when the claim was sent.
    if (fence === this.awaitedFence && this.#leader.tags.length === 0) this.waiters.validate(seq)
  }

  /** Results of grants up to `fence` are not served any more. Returns whether new callers must not join. */
  invalidateUpTo(fence: number): boolean {
    this.waiters.onInvalidated(fence)
    // As long as no grant is known (0), the result of the claim may be older than the invalidation.
    return this.awaitedFence <= fence
  }

  /** Returns whether new callers must not join. */
  invalidateTag(tag: string): boolean {
    this.waiters.onTagInvalidated()
    if (!this.#leader.tags.includes(tag) && !this.waiters.stale?.tags.includes(tag)) return false
    this.waiters.onInvalidated(Number.MAX_SAFE_INTEGER)
    return true
  }

  onSubscriptionLost(): void {
    this.waiters.onInvalidated(0)
    this.#claimant.onSubscriptionLost()
  }

  onSubscribed(): void {
    this.#claimant.poll()
    // Redis is available again: new callers do not wait for a result of this process alone.
    if (this.isUnshared) this.#listener.onSealed(this)
  }

  onWaiterLeft(): void {
    this.#listener.onWaiterLeft()
    if (this.waiters.size > 0) return
    if (this.#claimant.isParked) this.onLastWaiterGone()
    else this.held?.releaseIfUnwanted()
  }

  onSoftTimeout(waiter: Waiter): void {
    const served = serveAfterSoftTimeout(this.waiters, waiter)
    // It would accept the stale result, if the store says that it was not invalidated.
    if (served || !this.waiters.stale || !waiter.strict) return
    if (this.#claimant.isParked) this.#claimant.poll()
    else if (this.isProcessing) this.#listener.onUnvalidated(this, [waiter])
  }

  onSent(): void {
    this.#listener.onSent(this)
  }

  onBypass(waiter: Waiter, fence: number): void {
    this.#listener.onBypass(waiter, fence, this.waiters.stale)
  }

  onUnwanted(): void {
    this.held?.releaseIfUnwanted()
  }

  onLastWaiterGone(): void {
    this.#claimant.leave()
    this.#afterClose()
  }

  onFailed(error: (key: string) => unknown): void {
    this.onLastWaiterGone()
    for (const waiter of this.waiters) waiter.reject(error(this.key))
  }

  onUnavailable(): void {
    const call = this.waiters.first?.call
    if (!call) this.#close()
    else if (call.locker.unshared.size >= call.maxUnshared)
      this.onFailed((key) => new OverloadedError('Redis is unavailable, `maxUnshared` works run', { key }))
    else this.#process('local', 0, 0, call.locker.clock.now(), 0)
  }

  /** Begins the work of the first waiter. */
  onGranted(attempt: number, fence: number, sentAt: number): void {
    // Granted too late, another process may have the lease by now.
    if (this.waiters.size === 0 || isGrantedTooLate(this.#leader, sentAt)) {
      this.#claimant.releaseGrant(attempt, fence)
      this.#claimOrClose(0)
    } else if (this.waiters.first?.call.kind === 'token') {
      // Held by its token from now on: the flight waits for its outcome as for that of another process.
      this.waiters.first.grantToken(this.#claimant.grant('shared', attempt, fence, 0))
      this.#claimOrClose(fence)
    } else this.#process('shared', attempt, fence, sentAt, 0)
    if (this.waiters.stale) this.#serveStale()
  }

  #claimOrClose(awaitedFence: number): void {
    if (this.waiters.size > 0) this.#ask().claim(awaitedFence)
    else this.#close()
  }

  #serveStale(): void {
    if (!serveWhileRevalidating(this.waiters, this.isProcessing)) return
    const unvalidated = unvalidatedWaiters(this.waiters)
    if (unvalidated.length > 0) this.#listener.onUnvalidated(this, unvalidated)
  }

  /** The claimant asks again, in place of the work of this process. */
  #ask(): Claimant {
    if (this.isProcessing) this.#move(ASKING)
    return this.#claimant
  }

  onOutcome(outcome: Outcome, from: 'reply' | 'message'): void {
    this.#finish(outcome, this.waiters.sentAt, from)
  }

  #process(mode: Grant['mode'], attempt: number, fence: number, sentAt: number, bypassFence: number): void {
    const { first } = this.waiters
    if (!first) return this.#close()
    const { call, batch } = first
    const grant = this.#claimant.grant(mode, attempt, fence, sentAt)
    const held = new HeldLease(call, grant, this.waiters, this)
    this.#move(new Processing(held, bypassFence))
    this.#grantedFence = Math.max(this.#grantedFence, fence)
    this.waiters.replayProgress(undefined)
    if (mode !== 'shared') countUnshared(call, mode)
    if (batch) batch.onGranted(held)
    else if (call.work) performWork(call.work, held)
    else first.grant(new Lease(held))
  }

  onInvalidated(): void {
    this.#listener.onSealed(this)
  }

  onSettled(grant: Grant, { outcome, sentAt, validSeq, original }: Settled): void {
    const state = this.#state
    if (state.kind === 'closed' || this.#isSuperseded(grant)) return
    // The lease was lost, and the store was asked since: its reply may have told that a tag has changed.
    if (state.kind === 'asking' && !this.#claimant.verify(outcome)) return this.#claimant.poll()
    this.waiters.validate(validSeq)
    if (state.kind === 'processing' && grant.mode === 'bypass' && this.waiters.isUnchanged(''))
      storeBypassed(state.held, outcome, state.bypassFence)
    this.#finish(outcome, sentAt, 'work', original)
  }

  /** Its lease was lost, and the flight has gone on to a newer grant. */
  #isSuperseded(grant: Grant): boolean {
    const { fence } = grant
    if (fence === 0 || this.held?.grant === grant) return false
    return fence <= this.#claimant.afterFence || fence < Math.max(this.awaitedFence, this.#grantedFence)
  }

  /** The outcome is for the waiters that accept one of this process alone. */
  onUnpublished(grant: Grant, error: unknown, outcome: Outcome | undefined, original: unknown): void {
    const held = this.held
    if (held?.grant !== grant) return
    if (outcome) rejectUnlessUnshared(this.waiters, error)
    if (!outcome || this.waiters.size === 0) return this.onFailed(errorFor(error))
    countUnshared(held.call, 'local')
    this.onSettled(grant, { outcome, sentAt: 0, validSeq: this.waiters.lastSeq, original })
  }

  onLeaseLost(grant: Grant, unconfirmed?: Regrant): void {
    if (unconfirmed) this.#claimant.repeatAttempt(unconfirmed.attempt)
    if (this.held?.grant !== grant) return
    // If it was settled all the same, that outcome is what was waited for.
    this.#claimOrClose(grant.fence)
  }

  /** Grants anew to the next of the own waiters. */
  onReleasing(grant: Grant, asExpired: boolean): Regrant | undefined {
    if (this.held?.grant !== grant) return undefined
    if (asExpired)
      this.waiters.rejectWithoutTakeover('The processor was released at `maxHold`, and takeover is off')
    const regrants = grant.mode === 'shared' && this.waiters.size > 0
    return regrants ? { attempt: this.#claimant.nextAttempt(), lease: grant.lease } : undefined
  }

  onRegranted(grant: Grant, { attempt }: Regrant, fence: number, sentAt: number): void {
    if (this.held?.grant === grant) this.onGranted(attempt, fence, sentAt)
    else this.#claimant.releaseGrant(attempt, fence)
  }

  /**
   * Settles the waiters that may receive the outcome; the others ask the store. `freshFrom`: its ttl counts from there.
   * `original`: what the work threw in this process.
   */
  #finish(outcome: Outcome, freshFrom: number, from: 'reply' | 'message' | 'work', original?: unknown): void {
    let decoded: DecodedResult | undefined
    try {
      if (outcome.kind === 'value') decoded = this.#leader.read(outcome, freshFrom)
    } catch (error) {
      // What this process made and cannot read would not be better the next time.
      if (from === 'work') return this.onFailed(() => error)
      // A message may be forged: only the record decides what is computed anew.
      if (from === 'message') return this.#claimant.poll()
      countUndecodable(this.#leader.locker.counters, this.key, outcome.fence)
      return this.#claimant.claimAbove(outcome.fence)
    }
    if (from === 'reply') countHit(this.#leader.locker.counters, this.key)
    const receivers = this.waiters.receivers()
    if (receivers.length === this.waiters.size) this.#close()
    if (decoded) {
      if (this.waiters.isUnchanged(outcome.tags)) this.#leader.cacheOutcome(decoded, outcome, freshFrom)
      for (const waiter of receivers) waiter.resolve(decoded.result)
    } else {
      if (this.waiters.stale) serveInsteadOfError(this.waiters)
      for (const waiter of receivers) waiter.reject(remoteError(outcome.bytes, this.key, original))
    }
    // The others have left too, if a listener of telemetry made them.
    if (this.#state.kind !== 'closed') this.#ask().askAfter(outcome)
  }

  #close(): void {
    this.#claimant.close()
    this.#afterClose()
  }

  #afterClose(): void {
    this.#move(CLOSED)
    this.#listener.onClosed(this)
  }
}
