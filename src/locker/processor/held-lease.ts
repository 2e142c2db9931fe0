import {
  AbortedError,
  CodecError,
  LeaseLostError,
  type SoloflightError,
  UnavailableError,
} from '../../errors.ts'
import { encodeProgress, encodeWith, messageOf } from '../../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../../kernel/codec/failure.ts'
import { assertTransition } from '../../kernel/collections.ts'
import { emit } from '../../kernel/telemetry.ts'
import { LeaseTimer, type LeaseTimerListener } from '../../kernel/time.ts'
import { ProgressThrottle } from '../../kernel/waiter.ts'
import type { WaitNode } from '../../kernel/work-scheduler.ts'
import { extendTagVersions, serializeTagVersions } from '../cache/tag-guard.ts'
import type { JoinedCall } from '../call.ts'
import { track } from '../locker-context.ts'
import type { Outcome, Settlement } from '../store/store.ts'
import {
  type ActiveLease,
  type Grant,
  type HeldLeaseListener,
  isRenewed,
  LEASE_TRANSITIONS,
  type LeaseState,
  type LeaseWaiters,
  type Regrant,
  type ResultPolicy,
} from './lease-state.ts'

/**
 * A grant that this process holds: renews its lease, notices when it is lost, and ends it once, by settling or
 * releasing. Its states and their transitions are listed in lease-state.ts. Never reused: the next grant is another object.
 */
export class HeldLease implements ActiveLease, LeaseTimerListener {
  /** The call whose work runs under it. */
  readonly call: JoinedCall
  readonly grant: Grant
  readonly resultPolicy: ResultPolicy = {}
  readonly #waiters: LeaseWaiters
  readonly #listener: HeldLeaseListener
  readonly timer: LeaseTimer
  #state: LeaseState = 'held'
  /** The last settlement: pending as long as the state is one of the settling ones. */
  #settlement: Promise<void> | undefined
  /** What the last settlement would have come to, if it got no reply. */
  #unpublished: Outcome | undefined
  /** Made when the signal is first asked for, or aborts: most works do not ask. */
  #abort: AbortController | undefined
  #progress: ProgressThrottle | undefined

  constructor(call: JoinedCall, grant: Grant, waiters: LeaseWaiters, listener: HeldLeaseListener) {
    const { clock, maxHold, heldLeases, unshared } = call.locker
    this.call = call
    this.grant = grant
    this.#waiters = waiters
    this.#listener = listener
    this.timer = new LeaseTimer(clock, maxHold, this)
    heldLeases.add(call.record, this)
    if (grant.mode === 'local') unshared.add(this)
    if (this.shared) this.timer.extend(grant.sentAt, grant.lease)
    else this.timer.arm()
  }

  /** Whether the outcome reaches other processes. */
  get shared(): boolean {
    return this.grant.mode === 'shared'
  }

  /** Aborts when the lease is lost or given up. */
  get signal(): AbortSignal {
    this.#abort ??= new AbortController()
    return this.#abort.signal
  }

  /** Whoever waits for this work waits for this node. */
  get node(): WaitNode {
    return this.#listener
  }

  /** Nobody in this process waits for its work. */
  get isUnwanted(): boolean {
    return this.#waiters.areGone
  }

  get isLost(): boolean {
    return this.#state === 'lost' || this.#state === 'settling-lost'
  }

  /** Settled, released or discarded, or about to be. */
  get isEnding(): boolean {
    return this.#state !== 'held' && this.#state !== 'lost'
  }

  #move(to: LeaseState): void {
    assertTransition('held lease', LEASE_TRANSITIONS, this.#state, to)
    this.#state = to
    if (to === 'held' || to === 'settling') return
    this.#progress?.stop()
    if (to === 'lost' || to === 'settling-lost') return this.timer.abandon()
    this.timer.stop()
    if (to === 'releasing') return
    const { heldLeases, unshared } = this.call.locker
    heldLeases.delete(this.call.record, this)
    unshared.delete(this)
  }

  /**
   * Publishes a value. One that the codec refuses fails the flight instead.
   * @throws CodecError, LeaseLostError, UnavailableError
   */
  async publish(value: unknown, given: number | undefined = this.resultPolicy.ttl): Promise<void> {
    let bytes: Buffer
    try {
      bytes = encodeWith(this.call.codec, value)
    } catch (cause) {
      const message = `The result cannot be published: ${messageOf(cause)}`
      const error = new CodecError(message, { key: this.call.key, cause })
      await this.fail(error, 0)
      throw error
    }
    const { ttl, locker } = this.call
    const kind = this.resultPolicy.bypassFor === undefined ? 'value' : 'unstored'
    // A ttl that was given for this very result has no jitter.
    await this.#settle(kind, bytes, Math.round(given ?? ttl * (1 - Math.random() * locker.ttlJitter)))
  }

  /** Publishes a failure. @throws LeaseLostError, UnavailableError */
  async fail(error: unknown, ttl: number = this.call.errorTtl): Promise<void> {
    const { locker, context } = this.call
    await this.#settle('error', encodeFailure(exposedFailure(locker.exposeError, context, error)), ttl, error)
  }

  #settle(kind: Settlement['kind'], bytes: Buffer, ttl: number, original?: unknown): Promise<void> {
    this.#assertUnsettled()
    this.#move(this.#state === 'lost' ? 'settling-lost' : 'settling')
    const { record, nonce, attempt, fence, outcomeRetention, tagVersions } = this.grant
    // A literal: object spread is slower than the rest of the settlement.
    const settlement: Settlement = {
      record,
      nonce,
      attempt,
      fence,
      kind,
      bytes,
      ttl,
      outcomeRetention,
      keepStale: kind === 'value' ? this.call.keepStale : 0,
      tags: tagVersions ? serializeTagVersions(tagVersions) : '',
      bypassFor: this.resultPolicy.bypassFor ?? 0,
    }
    this.#settlement = this.#publish(settlement, original)
    return this.#settlement
  }

  async #publish(settlement: Settlement, original: unknown): Promise<void> {
    const sentSeq = this.#waiters.lastSeq
    const sentAt = this.call.locker.clock.now()
    const invalidated = this.shared && (await this.#publishInStore(settlement))
    this.#move('settled')
    const { kind, bytes, fence, ttl, keepStale, tags } = settlement
    const stored = this.shared && !invalidated && kind !== 'unstored'
    const outcome: Outcome = {
      kind: kind === 'error' ? kind : 'value',
      fence,
      bytes,
      ttlLeft: stored ? ttl : 0,
      invalidated,
      staleLeft: stored ? keepStale : 0,
      tags,
    }
    // The tag versions were last read when the claim was sent. No invalidation concerns a result that is not shared.
    const validSeq = !this.shared ? this.#waiters.lastSeq : invalidated || tags !== '' ? 0 : sentSeq
    this.#listener.onSettled(this.grant, { outcome, sentAt, validSeq, original })
  }

  /** Returns whether the grant had been invalidated. Throws unless the settlement was accepted. */
  async #publishInStore(settlement: Settlement): Promise<boolean> {
    const { store, counters, unavailableAfter } = this.call.locker
    const { kind, bytes, fence, tags } = settlement
    if (tags !== '') extendTagVersions(this.call, settlement.ttl + settlement.keepStale)
    const reply = await store.settle(settlement, unavailableAfter).catch((error) => {
      const terms = { fence: 0, ttlLeft: 0, staleLeft: 0, invalidated: false, tags }
      this.#unpublished = { kind: kind === 'error' ? kind : 'value', bytes, ...terms }
      this.#onNoReply()
      throw error
    })
    if (!reply.accepted) throw this.#onRefused()
    counters.settled++
    emit('settle', { key: this.call.key, fence, failed: kind === 'error' })
    return reply.invalidated
  }

  /** The lease is held as before the settlement, unless it was lost meanwhile. */
  #onNoReply(): void {
    if (this.#state === 'settling') {
      this.#move('held')
      this.timer.renewNow()
    } else {
      this.#move('lost')
      this.#listener.onLeaseLost(this.grant)
    }
  }

  #onRefused(): LeaseLostError {
    this.#lose(this.#lostError('The lease was lost: another holds it, or it ran out too long ago'))
    this.#move('discarded')
    this.#listener.onLeaseLost(this.grant)
    return this.#lostError('Not accepted: the lease was lost')
  }

  #assertUnsettled(): void {
    if (this.isEnding) throw this.#lostError('The lease is settled or released already')
  }

  /** Gives the lease up: the next waiter becomes the processor. @throws LeaseLostError, UnavailableError */
  async release(asExpired = false): Promise<void> {
    this.#assertUnsettled()
    this.#move('releasing')
    try {
      const regrant = this.#listener.onReleasing(this.grant, asExpired)
      if (this.shared) await this.#releaseInStore(asExpired, regrant)
      else this.#listener.onLeaseLost(this.grant)
    } finally {
      this.#move('released')
    }
  }

  async #releaseInStore(asExpired: boolean, regrant: Regrant | undefined): Promise<void> {
    const { locker } = this.call
    const sentAt = locker.clock.now()
    const request = locker.store.release({ ...this.grant, asExpired, regrant }, locker.unavailableAfter)
    track(locker, request)
    const { fence } = await request.catch((error) => {
      this.#listener.onLeaseLost(this.grant, regrant)
      throw error
    })
    if (regrant && fence !== undefined) this.#listener.onRegranted(this.grant, regrant, fence, sentAt)
    else this.#listener.onLeaseLost(this.grant)
  }

  /** It is lost, and nothing is to be published under it. */
  discard(): void {
    this.#move('discarded')
  }

  /** Its outcome was not published: hands it to the waiters who accept that, and releases the lease. */
  async giveUp(error: unknown, original: unknown): Promise<void> {
    const outcome = error instanceof UnavailableError ? this.#unpublished : undefined
    this.#listener.onUnpublished(this.grant, error, outcome, original)
    await this.cancelAndRelease(this.#lostError('The outcome could not be published', error))
  }

  /** Aborts the work and releases the lease, once a settlement that is under way has ended. Never rejects. */
  async cancelAndRelease(reason: SoloflightError, asExpired = false): Promise<void> {
    while (this.#state === 'settling' || this.#state === 'settling-lost')
      await this.#settlement?.catch(() => {})
    if (this.isEnding) return
    this.#abortWork(reason)
    await this.release(asExpired).catch(() => {})
  }

  /** Gives it up if nobody in any process waits for it, and the call asked for that. */
  releaseIfUnwanted(): void {
    if (this.#state !== 'held' || !this.isUnwanted || !this.call.abortUnwanted) return
    const unwanted = new AbortedError('Nobody waits for it any more', { key: this.call.key })
    if (!this.shared) return this.#lose(unwanted)
    const { store, unavailableAfter } = this.call.locker
    store.releaseIfUnwanted(this.grant, unavailableAfter).then(
      (reply) => {
        if (reply === 'released') this.#lose(unwanted)
        else if (reply === 'lost') this.#onTaken()
      },
      // The next renewal tries again.
      () => {},
    )
  }

  onRenewalDue(): void {
    const { clock, store, unavailableAfter } = this.call.locker
    const sentAt = clock.now()
    const sentSeq = this.#waiters.lastSeq
    this.releaseIfUnwanted()
    store.renew(this.grant, unavailableAfter).then(
      ({ held, invalidated }) => {
        if (!held) return this.#onTaken()
        if (!isRenewed(this.#state)) return
        if (invalidated) this.#listener.onInvalidated()
        else if (!this.grant.tagVersions?.size) this.#waiters.validate(sentSeq)
        this.timer.extend(sentAt, this.grant.lease)
      },
      () => {
        if (isRenewed(this.#state)) this.timer.retryRenewal(this.grant.lease)
      },
    )
  }

  onLeaseExpired(): void {
    this.#lose(this.#lostError('The lease ran out: it could not be renewed in time'))
  }

  onMaxHold(): void {
    const message = `The lease was held for ${this.call.locker.maxHold} ms and is released`
    if (this.#state === 'lost') this.discard()
    else void this.cancelAndRelease(this.#lostError(message), true)
  }

  /** The store does not know the grant. A settlement under way may have ended it: then the reply to that decides. */
  #onTaken(): void {
    if (this.#state === 'held') this.#lose(this.#lostError('The lease was lost: another holds it'))
  }

  /** While the lease is being settled the reply decides. When it is being released, or has ended, there is nothing to lose. */
  #lose(reason: SoloflightError): void {
    if (!isRenewed(this.#state)) return
    if (reason instanceof LeaseLostError) {
      this.call.locker.counters.lost++
      emit('lost', { key: this.call.key, fence: this.grant.fence })
    }
    this.#move(this.#state === 'settling' ? 'settling-lost' : 'lost')
    this.#abortWork(reason)
    // A listener of the signal may have published what there is.
    if (this.isLost && !this.isEnding) this.#listener.onLeaseLost(this.grant)
  }

  /** Listeners of the signal run in the context of the work. */
  #abortWork(reason: SoloflightError): void {
    this.#abort ??= new AbortController()
    this.call.context.run(() => this.#abort?.abort(reason))
  }

  /** Shows a value to everyone who waits. @throws CodecError when the codec refuses it, or it is too large for a message */
  progress(value: unknown): void {
    if (this.#state !== 'held') return
    const { codec, locker } = this.call
    const bytes = encodeProgress(codec, value, this.call.key)
    this.#waiters.showProgress(bytes)
    if (!this.shared) return
    // Best effort: when it cannot be sent, the work goes on.
    this.#progress ??= new ProgressThrottle(locker.clock, (last) => {
      locker.store.progress({ ...this.grant, bytes: last }, locker.unavailableAfter).catch(() => {})
    })
    this.#progress.push(bytes)
  }

  #lostError(message: string, cause?: unknown): LeaseLostError {
    return new LeaseLostError(message, { key: this.call.key, cause })
  }
}
