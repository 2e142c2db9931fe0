import type { SoloflightError } from '../../errors.ts'
import type { Transitions } from '../../kernel/collections.ts'
import type { WaitNode } from '../../kernel/work-scheduler.ts'
import type { TagVersions } from '../cache/tag-guard.ts'
import type { GrantRef, Outcome } from '../store/store.ts'

/**
 * The states of a lease that this process holds, and what leads from one to the next:
 *
 * | state | publish, fail | release | found lost | reply: accepted | reply: refused | no reply |
 * | --- | --- | --- | --- | --- | --- | --- |
 * | held | settling | releasing | lost | | | |
 * | settling | error | error | settling-lost | settled | settling-lost, discarded | held |
 * | settling-lost | error | error | | settled | discarded | lost |
 * | releasing | error | error | | released | released | released |
 * | lost | settling-lost | releasing | | | | |
 * | settled, released, discarded | error | error | | | | |
 *
 * Found lost: the lease ran out, it was released because nobody waits any more, or, while it is held, a renewal was refused.
 * The lease is renewed while it is held and while it is settling. The refusal of a renewal that arrives while settling is
 * ignored: the settlement may have ended the lease. The store accepts a settlement under a lease that ran out until another
 * process takes it, so the reply to the settlement decides. A lost lease is discarded when its work has not begun, and at
 * `maxHold`. A lease that is not shared is settled and released without a request.
 */
export type LeaseState =
  | 'held'
  | 'settling'
  | 'settling-lost'
  | 'releasing'
  | 'lost'
  | 'settled'
  | 'released'
  | 'discarded'

export const LEASE_TRANSITIONS: Transitions<LeaseState> = {
  held: ['settling', 'releasing', 'lost'],
  settling: ['settled', 'settling-lost', 'held'],
  'settling-lost': ['settled', 'discarded', 'lost'],
  releasing: ['released'],
  lost: ['settling-lost', 'releasing', 'discarded'],
  settled: [],
  released: [],
  discarded: [],
}

/** The lease is renewed also while a settlement is under way: that may get no reply. */
export function isRenewed(state: LeaseState): boolean {
  return state === 'held' || state === 'settling'
}

/** A grant, as the flight received it. Made by a constructor: see kernel/collections.ts. */
export class Grant implements GrantRef {
  readonly record: string
  readonly nonce: string
  readonly attempt: number
  /** 0 when it is not shared. */
  readonly fence: number
  /** When the claim was sent: the lease counts from there. */
  readonly sentAt: number
  /** The lease that was claimed, ms. It stays the same, whichever waiter's work runs under it. */
  readonly lease: number
  readonly outcomeRetention: number
  /** local: for this process alone, because Redis is unavailable. bypass: for its waiter alone, beside others. */
  readonly mode: 'shared' | 'local' | 'bypass'
  /** The versions of the tags when the claim was sent; undefined when there are none. */
  readonly tagVersions: TagVersions | undefined

  constructor(
    { record, nonce, attempt, fence }: GrantRef,
    sentAt: number,
    lease: number,
    mode: Grant['mode'],
    tagVersions: TagVersions | undefined,
  ) {
    this.record = record
    this.nonce = nonce
    this.attempt = attempt
    this.fence = fence
    this.sentAt = sentAt
    this.lease = lease
    this.outcomeRetention = outcomeRetention(lease)
    this.mode = mode
    this.tagVersions = tagVersions
  }
}

/** The attempt of a flight to which its lease is granted anew, in the same step, when it is released. */
export interface Regrant {
  readonly attempt: number
  readonly lease: number
}

/** A settlement that was accepted. */
export interface Settled {
  readonly outcome: Outcome
  /** When the settlement was sent, by the clock. */
  readonly sentAt: number
  /** The outcome was valid at some moment after this waiter joined; 0: not known of any. */
  readonly validSeq: number
  /** Of a failure: the value that the work threw. */
  readonly original: unknown
}

/** The waiters of the flight that holds a lease. */
export interface LeaseWaiters {
  /** Number of the last waiter that joined. Noted when a request is sent, and compared with when its reply arrives. */
  readonly lastSeq: number
  /** Nobody waits, and no stale result was served on the promise that it is revalidated. */
  readonly areGone: boolean
  /** The result was valid at some moment after the waiter `seq` joined. */
  validate(seq: number): void
  showProgress(bytes: Buffer): void
}

/** What the flight that holds a lease is told of it. */
export interface HeldLeaseListener extends WaitNode {
  /** The outcome is final for this process. */
  onSettled(grant: Grant, settled: Settled): void
  /** The outcome was not published and the lease is given up. `outcome`: for this process alone, if Redis is unavailable. */
  onUnpublished(grant: Grant, error: unknown, outcome: Outcome | undefined, original: unknown): void
  /** The lease is lost or released. `unconfirmed`: without a reply, so that it may have been granted anew to that attempt. */
  onLeaseLost(grant: Grant, unconfirmed?: Regrant): void
  /** A release is sent now. Returns the attempt to which it grants anew, if there is one. */
  onReleasing(grant: Grant, asExpired: boolean): Regrant | undefined
  onRegranted(grant: Grant, regrant: Regrant, fence: number, sentAt: number): void
  onInvalidated(): void
}

/** How the result is stored. Written by the work. */
export interface ResultPolicy {
  /** ms; that of the call when absent. */
  ttl?: number | undefined
  /** The result is not stored, and for this time callers run their own works, ms. */
  bypassFor?: number | undefined
}

/** How long an outcome stays readable to parked flights, ms: longer than the longest pause between two of their polls. */
export function outcomeRetention(lease: number): number {
  return Math.ceil(lease * 1.25 + 1000)
}

/** A lease that a locker holds, as the locker itself uses it. */
export interface ActiveLease {
  /** The call that it was granted to. Without a work, its caller has the lease. */
  readonly call: { readonly work: unknown }
  /** Its flight has gone on without it. */
  readonly isLost: boolean
  /** See `Lease.publish`. */
  publish(value: unknown, ttl?: number): Promise<void>
  /** Aborts the work and releases the lease. Never rejects. */
  cancelAndRelease(reason: SoloflightError): Promise<void>
}
