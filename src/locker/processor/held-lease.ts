import { AbortedError, CodecError, LeaseLostError, type SoloflightError } from '../../errors.ts'
import { encodeWith, messageOf } from '../../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../../kernel/codec/failure.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Timer } from '../../kernel/time/clock.ts'
import { serializeTagVersions, type TagVersions } from '../cache/tag-versions.ts'
import type { WaitNode } from '../flight/deadlock.ts'
import type { Call, JoinedCall } from '../flight/waiter.ts'
import { MESSAGE_LIMIT, type Outcome, type Settlement } from '../store/store.ts'

/** The flight, as far as its holding tells it how things went. */
export interface HeldLeaseEvents extends WaitNode {
  readonly nonce: string
  /** Number of the last waiter that has joined. */
  readonly seq: number
  /** Nobody in this process wants what is computed any more, and that is to end it if nobody anywhere does. */
  readonly shouldCancel: boolean
  /** Final for this process. `sentSeq` and `sentAt`: when it went out. `original`: the thrown value, of a failure. */
  onSettled(outcome: Outcome, sentSeq: number, sentAt: number, original: unknown): void
  onLeaseLost(held: HeldLease): void
  /** `expired`: it was held for too long, which is to those who wait as if it had died. */
  release(held: HeldLease, expired: boolean): Promise<void>
  /** Until that waiter, nothing can have been invalidated before it joined. */
  validate(seq: number): void
  /** The key was invalidated while this is held. */
  onInvalidated(): void
  showProgress(bytes: Buffer): void
}

/** A grant, as the flight received it. */
export interface Grant {
  attempt: number
  fence: number
  /** When the claim went out: the lease counts from there. */
  sentAt: number
  /** The lease that was claimed, ms. It stays the same, whichever waiter's work runs under it. */
  lease: number
  /** False when there is no lease at all, because Redis is away, or nobody waits for anybody. */
  shared: boolean
  /** It is because Redis is away. */
  unavailable: boolean
  /** Of the tags, as they were when the claim went out. */
  tagVersions: TagVersions
}

/** How what is published is kept. */
export interface ResultPolicy {
  /** ms; that of the call when absent. */
  ttl?: number | undefined
  /** Not at all; and for so long nobody is to wait for anybody, ms. */
  bypassFor?: number | undefined
}

/** How long the epochs of tags are known beyond what they are noted on, ms. */
const TAG_VERSION_GRACE = 60_000

/** Progress is told this often at most, ms. */
const PROGRESS_INTERVAL = 50

/** A lease is renewed after this part of it. */
const RENEW_FRACTION = 1 / 3

/** How long before its end a lease counts as lost, ms: what the signal needs to be heard. */
export function lossMargin(lease: number): number {
  return Math.min(200, lease / 10)
}

/** What was settled is remembered for longer than anybody waits before looking again, ms. */
export function outcomeRetention(lease: number): number {
  return Math.ceil(lease * 1.25 + 1000)
}

/** How long the epochs of a call's tags are to be known, ms. */
export function tagVersionRetention(call: Call): number {
  return Math.ceil(call.ttl) + call.keepStale + TAG_VERSION_GRACE
}

/**
 * One grant in the hands of this process: renews the lease, knows when it is lost, and ends it once, by settling or
 * releasing. Never reused: the next grant is another object.
 */
export class HeldLease {
  readonly call: JoinedCall
  readonly grant: Grant
  readonly #flight: HeldLeaseEvents
  /** Made when it is first asked for: most works do not. */
  #abort: AbortController | undefined
  /** One for all three moments. */
  #timer: Timer | undefined
  #timerAt = Number.POSITIVE_INFINITY
  /** By the clock: when the lease is to be renewed, when it is lost, and when it has been held for `maxHold`. */
  #renewAt = Number.POSITIVE_INFINITY
  #loseAt = Number.POSITIVE_INFINITY
  #maxHoldAt: number
  /** When that went out which last extended the lease. */
  #renewedAt = 0
  /** What could not be published, because the store did not answer. */
  unpublished: Outcome | undefined
  /** Settled or released, or on the way there. */
  #ending = false
  /** On the way: resolves when it is known whether it was settled. */
  #settling: Promise<void> | undefined
  #ended = false
  #lost = false
  /** The progress that is still to be told, and when it may be. */
  #pendingProgress: Buffer | undefined
  #progressTimer: Timer | undefined
  /** What the work has said of its result. */
  readonly resultPolicy: ResultPolicy = {}

  constructor(call: JoinedCall, grant: Grant, flight: HeldLeaseEvents) {
    this.call = call
    this.grant = grant
    this.#flight = flight
    this.#register()
    this.#maxHoldAt = call.locker.clock.now() + call.locker.maxHold
    if (grant.shared) this.#extended(grant.sentAt)
    this.#watch()
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController()
    return this.#abort.signal
  }

  /** What those wait for who wait for this. */
  get node(): WaitNode {
    return this.#flight
  }

  /** Whether the flight has moved on without it. */
  get isLost(): boolean {
    return this.#lost
  }

  /** Whether it was settled or released, or is about to be. */
  get isEnding(): boolean {
    return this.#ending
  }

  #register(): void {
    const { heldLeases } = this.call.locker
    const leases = heldLeases.get(this.call.record)
    if (leases) leases.add(this)
    else heldLeases.set(this.call.record, new Set([this]))
    if (this.grant.unavailable) this.call.locker.unshared.add(this)
  }

  /** Publishes a value. What cannot be carried fails the flight instead, and throws CodecError. */
  async publish(value: unknown, given: number | undefined = this.resultPolicy.ttl): Promise<void> {
    let bytes: Buffer
    try {
      bytes = encodeWith(this.call.codec, value)
    } catch (cause) {
      const { key } = this.call
      const error = new CodecError(`The result cannot be published: ${messageOf(cause)}`, { key, cause })
      await this.fail(error, 0)
      throw error
    }
    const { ttl, locker } = this.call
    const kind = this.resultPolicy.bypassFor === undefined ? 'value' : 'unstored'
    // A ttl that was given for this very result is meant as it is.
    await this.#settle(kind, bytes, Math.round(given ?? ttl * (1 - Math.random() * locker.ttlJitter)))
  }

  /** Publishes a failure. */
  async fail(error: unknown, ttl: number = this.call.errorTtl): Promise<void> {
    const { locker, context } = this.call
    await this.#settle('error', encodeFailure(exposedFailure(locker.exposeError, context, error)), ttl, error)
  }

  #settle(kind: Settlement['kind'], bytes: Buffer, ttl: number, original?: unknown): Promise<void> {
    const settled = this.#trySettle(kind, bytes, ttl, original)
    if (!this.#settling) this.#settling = settled.catch(() => {}).finally(() => (this.#settling = undefined))
    return settled
  }

  async #trySettle(kind: Settlement['kind'], bytes: Buffer, ttl: number, original: unknown): Promise<void> {
    this.#begin()
    const { locker, key, record } = this.call
    const { fence, attempt, lease, shared, tagVersions } = this.grant
    const stale = kind === 'value' ? this.call.keepStale : 0
    const tags = serializeTagVersions(tagVersions)
    const sentSeq = this.#flight.seq
    const sentAt = locker.clock.now()
    const outcomeKind = kind === 'error' ? kind : 'value'
    let invalidated = false
    if (shared) {
      if (tags !== '') this.#extendTagVersions(ttl + stale)
      const { nonce } = this.#flight
      const { bypassFor = 0 } = this.resultPolicy
      // Written out: making an object by spreading two others takes longer than all the rest of a settlement.
      const settlement: Settlement = {
        key: record,
        nonce,
        attempt,
        fence,
        kind,
        bytes,
        ttl,
        outcomeRetention: outcomeRetention(lease),
        keepStale: stale,
        tags,
        bypassFor,
      }
      const reply = await locker.store.settle(settlement, this.#limits()).catch((error) => {
        this.unpublished = {
          kind: outcomeKind,
          fence: 0,
          bytes,
          ttlLeft: 0,
          invalidated: false,
          staleLeft: stale,
          tags,
        }
        this.#resume()
        throw error
      })
      if (!reply.accepted) throw this.#refused()
      invalidated = reply.invalidated
      locker.counters.settled++
      emit('settle', { key, fence, failed: kind === 'error' })
    }
    this.#end()
    const kept = shared && !invalidated && kind !== 'unstored'
    const outcome: Outcome = {
      kind: outcomeKind,
      fence,
      bytes,
      ttlLeft: kept ? ttl : 0,
      invalidated,
      staleLeft: kept ? stale : 0,
      tags,
    }
    this.#flight.onSettled(outcome, sentSeq, sentAt, original)
  }

  /** The epochs of its tags are to be known as long as they are noted on what is kept. If not, that is not served. */
  #extendTagVersions(ms: number): void {
    const { locker, ttl, tags, keepStale } = this.call
    if (ms > ttl + keepStale)
      locker.store.tagVersions(tags, ms + TAG_VERSION_GRACE, this.#limits()).catch(() => {})
  }

  /** Gives the lease up: the next waiter becomes the processor. */
  async release(expired = false): Promise<void> {
    this.#begin()
    this.#stop()
    try {
      await this.#flight.release(this, expired)
    } finally {
      this.#end()
    }
  }

  /** It was lost before anything was done under it. */
  discard(): void {
    this.#end()
  }

  /** What was to end it failed: it is held as before, as far as it still is. */
  #resume(): void {
    this.#ending = false
    if (this.#lost) return this.#flight.onLeaseLost(this)
    this.#extended(this.#renewedAt)
    this.#renewAt = this.call.locker.clock.now()
    this.#watch()
  }

  #begin(): void {
    const { key } = this.call
    if (this.#ending) throw new LeaseLostError('The lease is settled or released already', { key })
    this.#ending = true
  }

  #refused(): LeaseLostError {
    this.#ending = false
    if (this.#lost) this.#flight.onLeaseLost(this)
    else this.#lose('The lease was lost: another holds it, or it ran out too long ago')
    this.#end()
    return new LeaseLostError('Not accepted: the lease was lost', { key: this.call.key })
  }

  /** Nothing more is to be expected of it. */
  #end(): void {
    this.#ending = true
    this.#ended = true
    this.#maxHoldAt = Number.POSITIVE_INFINITY
    this.#stop()
    const { heldLeases, unshared } = this.call.locker
    unshared.delete(this)
    const leases = heldLeases.get(this.call.record)
    if (leases?.delete(this) && leases.size === 0) heldLeases.delete(this.call.record)
  }

  /** The lease is left alone from now on. */
  #stop(): void {
    this.#renewAt = this.#loseAt = Number.POSITIVE_INFINITY
    this.#progressTimer?.cancel()
    this.#watch()
  }

  /** The lease was extended by what went out at `sentAt`: it is lost a margin before a lease after that. */
  #extended(sentAt: number): void {
    const { lease } = this.grant
    const { locker } = this.call
    this.#renewedAt = sentAt
    this.#loseAt = sentAt + lease - lossMargin(lease)
    this.#renewAt = locker.clock.now() + lease * RENEW_FRACTION
  }

  /** Waits for the next moment. */
  #watch(): void {
    const { clock } = this.call.locker
    const next = Math.min(this.#renewAt, this.#loseAt, this.#maxHoldAt)
    if (next === this.#timerAt) return
    this.#timer?.cancel()
    this.#timerAt = next
    this.#timer =
      next === Number.POSITIVE_INFINITY ? undefined : clock.after(next - clock.now(), this.#due, true)
  }

  readonly #due = (): void => {
    const now = this.call.locker.clock.now()
    this.#timerAt = Number.POSITIVE_INFINITY
    if (now >= this.#loseAt) {
      this.#loseAt = Number.POSITIVE_INFINITY
      this.#lose('The lease ran out: it could not be renewed in time')
    } else if (now >= this.#renewAt) {
      this.#renewAt = Number.POSITIVE_INFINITY
      this.#renew()
    }
    if (now >= this.#maxHoldAt) {
      this.#maxHoldAt = Number.POSITIVE_INFINITY
      this.#onMaxHold()
    }
    this.#watch()
  }

  #renew(): void {
    const { locker, record } = this.call
    const { attempt, fence, lease } = this.grant
    const sentAt = locker.clock.now()
    const sentSeq = this.#flight.seq
    if (this.#flight.shouldCancel) this.releaseIfUnwanted()
    locker.store
      .renew({ key: record, nonce: this.#flight.nonce, attempt, fence, lease }, this.#limits())
      .then(
        ({ held, invalidated }) => {
          if (this.#ending || this.#lost) return
          if (!held) return this.#lose('The lease was lost: another holds it')
          if (invalidated) this.#flight.onInvalidated()
          else this.#flight.validate(sentSeq)
          this.#extended(sentAt)
          this.#watch()
        },
        () => {
          if (this.#ended || this.#lost) return
          this.#renewAt = locker.clock.now() + Math.min(lease / 10, 500)
          this.#watch()
        },
      )
  }

  #limits(): { within: number } {
    return { within: this.call.locker.unavailableAfter }
  }

  #lose(message: string): void {
    if (this.#lost) return
    const { key, locker } = this.call
    locker.counters.lost++
    emit('lost', { key, fence: this.grant.fence })
    this.#markLost(new LeaseLostError(message, { key }))
  }

  #markLost(reason: SoloflightError): void {
    this.#lost = true
    this.#stop()
    this.#abortWork(reason)
    // While a publish is under way, it may still be accepted: what comes of that decides.
    if (!this.#ending) this.#flight.onLeaseLost(this)
  }

  /** Listeners of the signal run in the context of the work. */
  #abortWork(reason: SoloflightError): void {
    this.#abort ??= new AbortController()
    const { context } = this.call
    context.run(() => this.#abort?.abort(reason))
  }

  /** Nobody in this process wants it any more: gives it up, if nobody anywhere does. */
  releaseIfUnwanted(): void {
    if (this.#ending || this.#lost) return
    const { locker, record, key } = this.call
    const { attempt, fence, lease, shared } = this.grant
    const unwanted = () => this.#markLost(new AbortedError('Nobody waits for it any more', { key }))
    if (!shared) return unwanted()
    const grant = {
      key: record,
      nonce: this.#flight.nonce,
      attempt,
      fence,
      outcomeRetention: outcomeRetention(lease),
    }
    const abandoned = locker.store.releaseIfUnwanted(grant, this.#limits())
    abandoned.then(
      (reply) => {
        if (this.#lost) return
        if (reply === 'released') unwanted()
        else if (reply === 'lost' && !this.#ending) this.#lose('The lease was lost: another holds it')
      },
      // The next renewal tries again.
      () => {},
    )
  }

  /** Held until `close` would wait no longer, or (`expired`) for the longest time allowed: stops the work and hands over. */
  async cancelAndRelease(reason: SoloflightError, expired = false): Promise<void> {
    while (this.#settling) await this.#settling
    if (this.#ending) return
    this.#abortWork(reason)
    await this.release(expired).catch(() => {})
  }

  #onMaxHold(): void {
    const { key, locker } = this.call
    if (this.#lost) this.#end()
    else
      void this.cancelAndRelease(
        new LeaseLostError(`The lease was held for ${locker.maxHold} ms and is let go`, { key }),
        true,
      )
  }

  /** Shows a value to all who wait. Throws CodecError when it cannot be carried or is too large for a message. */
  progress(value: unknown): void {
    if (this.#ending || this.#lost) return
    const { key, codec } = this.call
    const bytes = encodeWith(codec, value)
    if (bytes.length > MESSAGE_LIMIT)
      throw new CodecError(`Progress of ${bytes.length} bytes is too large`, { key })
    this.#flight.showProgress(bytes)
    this.#pendingProgress = bytes
    if (this.grant.shared && !this.#progressTimer) this.#flushProgress()
  }

  #flushProgress(): void {
    const bytes = this.#pendingProgress
    this.#progressTimer = undefined
    if (!bytes) return
    this.#pendingProgress = undefined
    const { locker, record } = this.call
    const { attempt, fence } = this.grant
    // Progress is a courtesy: if it cannot be told, the work goes on.
    locker.store
      .progress({ key: record, nonce: this.#flight.nonce, attempt, fence, bytes }, this.#limits())
      .catch(() => {})
    this.#progressTimer = locker.clock.after(PROGRESS_INTERVAL, () => this.#flushProgress(), true)
  }
}
