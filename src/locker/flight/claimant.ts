import { OverloadedError, UnavailableError } from '../../errors.ts'
import { assertTransition } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import { shown } from '../../kernel/options.ts'
import { emit } from '../../kernel/telemetry.ts'
import { TagGuard } from '../cache/tag-guard.ts'
import type { JoinedCall } from '../call.ts'
import { track } from '../locker-context.ts'
import { Grant } from '../processor/lease-state.ts'
import type { Claimer, ClaimReply, Notice, Outcome } from '../store/store.ts'
import {
  CLAIMANT_TRANSITIONS,
  type ClaimantListener,
  type ClaimantState,
  Claiming,
  ClaimPolicy,
  DONE,
  IDLE,
  Parked,
  parkedFor,
  READING,
} from './flight-state.ts'
import { readStale, serveAnsweredStale, serveWhileRevalidating, serveWithoutStore } from './stale-serving.ts'
import { errorFor, type WaiterSet } from './waiter-set.ts'

/**
 * Asks the store on behalf of a flight: reads, claims, and parks behind the processor of another process. Messages are
 * hints: while parked it also polls when the lease of the processor ends, and when messages may have been missed. What a
 * reply brought that is not waited for any more is given back.
 */
export class Claimant implements Claimer {
  /** Messages to this flight echo it; with the number of an attempt, it names a grant. */
  readonly #nonce = newId()
  readonly #call: JoinedCall
  readonly #waiters: WaiterSet
  readonly #listener: ClaimantListener
  #state: ClaimantState = IDLE
  readonly #policy: ClaimPolicy
  /** Number of the last request. */
  #attempt = 0
  /** Made when there are tags. */
  #tagGuard: TagGuard | undefined

  /** It asks by the options of `call`, which began the flight. */
  constructor(call: JoinedCall, waiters: WaiterSet, listener: ClaimantListener) {
    this.#call = call
    this.#waiters = waiters
    this.#listener = listener
    this.#policy = new ClaimPolicy(call)
    if (call.tags.length > 0) this.#tagGuard = new TagGuard(call)
  }

  /** The grant whose outcome is waited for; 0 when none is known. */
  get awaitedFence(): number {
    const state = this.#state
    return state.kind === 'claiming' || state.kind === 'parked' ? state.awaitedFence : 0
  }

  get afterFence(): number {
    return this.#policy.afterFence
  }

  /** A reply is waited for. */
  get isWaiting(): boolean {
    return this.#state.kind === 'reading' || this.#state.kind === 'claiming'
  }

  get isParked(): boolean {
    return this.#state.kind === 'parked'
  }

  #move(to: ClaimantState): void {
    assertTransition('claimant', CLAIMANT_TRANSITIONS, this.#state.kind, to.kind)
    if (this.#state.kind === 'parked') this.#state.stopPolling()
    this.#state = to
  }

  /** Reads the value, and claims if there is none; refreshing, it claims at once. */
  begin(): void {
    if (this.#policy.refresh) return this.claim(0)
    this.#move(READING)
    const attempt = this.#attempt
    const { store, unavailableAfter } = this.#call.locker
    store
      .readFresh(this.#call.record, unavailableAfter, () => this.sending())
      .then(
        (outcome) => this.#onRead(outcome, attempt),
        (error) => this.claimFailed(error, attempt),
      )
  }

  #onRead(outcome: Outcome | undefined, attempt: number): void {
    if (!this.#expects(attempt)) return
    if (this.#waiters.size === 0) this.#listener.onLastWaiterGone()
    else if (outcome && outcome.fence > this.afterFence) this.claimed({ status: 'done', outcome }, attempt)
    else this.claim(0)
  }

  /** Asks to be the processor, or for the outcome. `awaitedFence`: see {@link Claiming}. */
  claim(awaitedFence: number): void {
    const { store, unavailableAfter } = this.#call.locker
    // A waiter that may not replace a processor that died must be told of its death, to reject.
    const takeover = awaitedFence === 0 || [...this.#waiters].every(({ call }) => call.locker.takeover)
    this.#move(new Claiming(awaitedFence))
    const claim = this.#policy.claim(this.#call, this.#nonce, ++this.#attempt, awaitedFence, takeover)
    store.claim(claim, unavailableAfter, this)
  }

  /** Nothing up to `fence` is accepted any more. */
  claimAbove(fence: number): void {
    this.#policy.rejectUpTo(fence)
    this.claim(0)
  }

  /** Asks for the waiters that are left after an outcome. */
  askAfter({ invalidated, ttlLeft, fence }: Outcome): void {
    if (invalidated) this.#policy.rejectUpTo(fence)
    // An outcome that is not fresh may be read only by a flight that waits for it. Asked for like that, a fresh one could be
    // answered by another that was not stored.
    else if (ttlLeft === 0 && fence > 0) return this.claim(fence)
    // A late reply to an earlier request is not taken for that of this read.
    this.#attempt++
    this.begin()
  }

  close(): void {
    this.#move(DONE)
    this.#stopListening()
  }

  /** The flight is closed without an outcome: gives up the place on the record. */
  leave(): void {
    const parks = this.awaitedFence > 0
    this.close()
    if (parks) this.#unpark()
  }

  sending(): void {
    const { clock, store } = this.#call.locker
    this.#waiters.onSent(clock.now(), store.subscribed)
    this.#tagGuard?.onSent()
    this.#listener.onSent()
  }

  #expects(attempt: number): boolean {
    return this.isWaiting && this.#attempt === attempt
  }

  claimFailed(error: unknown, attempt: number): void {
    if (this.#expects(attempt)) this.#onUnavailable(error)
    else this.#stopListening()
  }

  claimed(reply: ClaimReply, attempt: number): void {
    const tags = reply.status === 'done' ? reply.outcome.tags : ''
    if (!this.#expects(attempt)) this.#onLateReply(reply, attempt)
    else if (tags || reply.stale?.tags || this.#tagGuard?.isReading) void this.#checkTags(reply, attempt)
    else this.#onReply(reply, attempt)
  }

  /** What has an invalidated tag is not served. */
  async #checkTags(reply: ClaimReply, attempt: number): Promise<void> {
    this.#tagGuard ??= new TagGuard(this.#call)
    let checked: ClaimReply | { outdatedFence: number }
    try {
      checked = await this.#tagGuard.check(reply)
    } catch (error) {
      this.#onLateReply(reply, attempt)
      if (!this.#expects(attempt)) return
      if (reply.status === 'parked') this.#unpark()
      return this.#onUnavailable(error)
    }
    if (!this.#expects(attempt)) this.#onLateReply(reply, attempt)
    else if ('outdatedFence' in checked) this.claimAbove(checked.outdatedFence)
    else this.#onReply(checked, attempt)
  }

  #onLateReply(reply: ClaimReply, attempt: number): void {
    this.#stopListening()
    if (reply.status === 'granted') this.releaseGrant(attempt, reply.fence)
    // A parked flight that does not listen would swallow the message that the resource is free.
    else if (reply.status === 'parked' && !this.isWaiting && !this.isParked) this.#unpark()
  }

  /** Every claim that is sent listens anew, also one that is sent after the flight was closed. */
  #stopListening(): void {
    if (this.#state === DONE) this.#call.locker.store.ignore(this.#nonce)
  }

  #onReply(reply: ClaimReply, attempt: number): void {
    this.#waiters.onAnswered()
    const { key, record, locker } = this.#call
    const waiters = this.#waiters
    // A stale value that does not come again has expired, or was invalidated.
    if (reply.stale) readStale(waiters, this.#call, reply.stale)
    else waiters.dropStale(Number.MAX_SAFE_INTEGER)
    switch (reply.status) {
      case 'done':
        if (!reply.outcome.invalidated) waiters.validate(waiters.sentSeq)
        return this.#listener.onOutcome(reply.outcome, 'reply')
      case 'stale':
        waiters.validate(waiters.sentSeq)
        // The waiters that are left wait for the new value, unless they joined while this claim was under way.
        this.#policy.acceptStale = serveAnsweredStale(waiters, this.#call, reply.stale)
          ? this.#call.staleWhileRevalidate
          : 0
        return this.#claimForTheRest()
      case 'bypass':
        return this.#onBypass(reply.fence)
      case 'granted':
        locker.counters.grants++
        if (reply.takeover) locker.counters.takeovers++
        emit('grant', { key, fence: reply.fence, takeover: reply.takeover })
        waiters.validate(waiters.sentSeq)
        this.#move(IDLE)
        return this.#listener.onGranted(attempt, reply.fence, waiters.sentAt)
      case 'parked':
        locker.counters.parks++
        waiters.validate(waiters.sentSeq)
        return this.#park(reply)
      case 'lease-expired':
        waiters.rejectWithoutTakeover('The processor died, and takeover is off')
        return this.#claimForTheRest()
      case 'overloaded':
        return this.#listener.onFailed(
          () => new OverloadedError('Too many flights are parked on this key', { key }),
        )
      case 'conflict':
        return this.#onUnavailable(new UnavailableError('Redis sent a malformed reply', { key }))
      case 'exhausted': {
        const message = `The record ${shown(record)} of ${shown(key)} can grant no more: no number above its fence is exact. Delete it`
        return this.#onUnavailable(new UnavailableError(message, { key }))
      }
    }
  }

  #claimForTheRest(): void {
    if (this.#waiters.size > 0) this.claim(this.awaitedFence)
    else this.#listener.onLastWaiterGone()
  }

  /** Each waiter runs its own work, beside the others. One that asked for a lease waits for that. */
  #onBypass(fence: number): void {
    for (const waiter of this.#waiters) {
      if (!waiter.call.work) continue
      this.#waiters.release(waiter)
      this.#listener.onBypass(waiter, fence)
    }
    this.#policy.allowBypass = false
    this.#claimForTheRest()
  }

  #onUnavailable(error: unknown): void {
    if (!(error instanceof OverloadedError)) this.#call.locker.counters.unavailable++
    if (!(error instanceof UnavailableError)) return this.#listener.onFailed(errorFor(error))
    serveWithoutStore(this.#waiters, error)
    if (this.#waiters.size > 0) this.#move(IDLE)
    this.#listener.onUnavailable()
  }

  #park(reply: ClaimReply & { status: 'parked' }): void {
    const { key, locker } = this.#call
    const { fence, afterFence, leaseLeft, progress, trace } = reply
    const claiming = this.#state.kind === 'claiming' ? this.#state : undefined
    emit('park', { key, fence, trace: trace || undefined })
    // The grant is new enough if it is after `afterFence`.
    this.#policy.afterFence = afterFence
    this.#policy.refresh = false
    const parked = new Parked(fence, parkedFor(leaseLeft, this.#call), locker.clock, () => this.poll())
    this.#move(parked)
    if (this.#waiters.size === 0) return this.#listener.onLastWaiterGone()
    // The progress of a work whose outcome these waiters do not accept is not for them either.
    if (!claiming?.hasProgressOf(fence))
      this.#waiters.replayProgress(afterFence < fence ? progress : undefined)
    this.#waiters.showParked(leaseLeft > 0)
    if (claiming?.mustClaimAgain) return this.claim(fence)
    if (this.#waiters.stale) serveWhileRevalidating(this.#waiters, false)
    for (const waiter of this.#waiters) waiter.batch?.onClaimAnswered(key)
    if (this.#state === parked) parked.schedulePoll(locker.store.subscribed)
  }

  /** Messages may be missed from now on. */
  onSubscriptionLost(): void {
    if (this.#state.kind === 'parked') this.#state.schedulePoll(false)
  }

  /** Something may have happened that no message told. */
  poll(): void {
    if (this.#state.kind === 'parked') this.claim(this.#state.awaitedFence)
    else if (this.#state.kind === 'claiming') this.#state.mustClaimAgain = true
  }

  notice(notice: Notice): void {
    const state = this.#state
    if (notice.kind === 'probe') return
    if (notice.kind === 'unwanted') return this.#listener.onUnwanted()
    if (state.kind !== 'parked' && state.kind !== 'claiming') return
    if (notice.kind === 'progress') {
      if (state.awaitedFence > this.afterFence) this.#waiters.showProgress(notice.bytes)
      if (state.kind === 'claiming') state.onProgress(this.afterFence)
    } else if (notice.kind === 'outcome' && this.#awaits(notice.outcome)) this.#onOutcome(notice.outcome)
    else this.poll()
  }

  /** A message may overtake the reply that would have told what to wait for. */
  #awaits({ fence }: Outcome): boolean {
    return this.awaitedFence > 0 && fence >= this.awaitedFence && fence > this.afterFence
  }

  /** Whether no tag of an outcome was invalidated since its work began. Undefined: only a new claim can tell. */
  verify(outcome: Outcome): boolean | undefined {
    return outcome.tags === '' || this.#tagGuard?.verify(outcome)
  }

  #onOutcome(outcome: Outcome): void {
    const unchanged = this.verify(outcome)
    if (unchanged === undefined) this.poll()
    else if (unchanged) this.#listener.onOutcome(outcome, 'message')
    else this.claimAbove(outcome.fence)
  }

  /** The number of the claim that a lease which is granted anew stands for. */
  nextAttempt(): number {
    return ++this.#attempt
  }

  /** It is not known whether that attempt was granted: the next claim repeats it, and would find its own grant. */
  repeatAttempt(attempt: number): void {
    this.#attempt = attempt - 1
  }

  /** A grant, as its holder names it in the store. */
  grant(mode: Grant['mode'], attempt: number, fence: number, sentAt: number): Grant {
    const { record, lease } = this.#call
    const ref = { record, nonce: this.#nonce, attempt, fence }
    return new Grant(ref, sentAt, lease, mode, this.#tagGuard?.versions)
  }

  /** Gives a grant back that nobody wants. If this fails, the lease ends by itself. */
  releaseGrant(attempt: number, fence: number): void {
    const { locker } = this.#call
    const release = { ...this.grant('shared', attempt, fence, 0), asExpired: false, regrant: undefined }
    track(locker, locker.store.release(release, locker.unavailableAfter))
  }

  #unpark(): void {
    const { record, locker } = this.#call
    track(locker, locker.store.unpark(record, this.#nonce, locker.unavailableAfter))
  }
}
