import type { Transitions } from '../../kernel/collections.ts'
import type { TagVersions } from '../cache/tag-versions.ts'
import type { GrantRef, Outcome } from '../store/store.ts'
import type { WaitNode } from '../work.ts'

/**
 * The states of a lease in the hands of this process, and what leads from one to the next:
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
 * Found lost: the lease ran out, a renewal was refused, or nobody waits any more. The store accepts a settlement under a
 * lease that ran out until another process takes it: while one is under way, its reply decides. A lost lease is discarded
 * when its work has not begun, and at `maxHold`. A lease that is not shared is settled and released without a request.
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

/** A grant, as the flight received it. */
export interface Grant extends GrantRef {
  /** When the claim was sent: the lease counts from there. */
  readonly sentAt: number
  /** The lease that was claimed, ms. It stays the same, whichever waiter's work runs under it. */
  readonly lease: number
  readonly outcomeRetention: number
  /** local: for this process alone, because Redis is away. bypass: for its waiter alone, beside other works of the key. */
  readonly mode: 'shared' | 'local' | 'bypass'
  /** The versions of the tags when the claim was sent. */
  readonly tagVersions: TagVersions
}

/** The attempt of a flight to which its lease is granted anew, in the same step, when it is released. */
export interface Regrant {
  readonly attempt: number
  readonly lease: number
}

/** A settlement that was accepted. */
export interface Settled {
  readonly outcome: Outcome
  /** The last waiter that had joined when the settlement was sent, and when that was. */
  readonly sentSeq: number
  readonly sentAt: number
  /** Of a failure: the value that the work threw. */
  readonly original: unknown
}

/** What the flight that holds a lease is told of it. */
export interface HeldLeaseListener extends WaitNode {
  /** Number of the last waiter that joined. Read when a request is sent, and handed back with its reply. */
  readonly seq: number
  /** Nobody in this process waits for the work, and no stale result was served on the promise that it is renewed. */
  readonly hasNoWaiters: boolean
  /** The outcome is final for this process. */
  onSettled(grant: Grant, settled: Settled): void
  /** The outcome was not published and the lease is given up. `outcome`: for this process alone, if Redis is unavailable. */
  onUnpublished(grant: Grant, error: unknown, outcome: Outcome | undefined, original: unknown): void
  /** The lease is lost, and no settlement is under way. */
  onLeaseLost(grant: Grant): void
  /** A release is sent now. Returns the attempt to which it grants anew, if there is one. */
  onReleasing(grant: Grant, asExpired: boolean): Regrant | undefined
  /** The lease was released. `regranted`: and granted anew. */
  onReleased(grant: Grant, regranted: Pick<Grant, 'attempt' | 'fence' | 'sentAt'> | undefined): void
  /** The release got no reply: the lease may have been granted anew all the same. */
  onReleaseFailed(grant: Grant, regrant: Regrant | undefined): void
  /** A renewal is sent now. */
  onRenewing(): void
  /** A renewal was accepted that was sent after the waiter `sentSeq` joined: the grant was not invalidated by then. */
  onRenewed(sentSeq: number): void
  /** The grant was invalidated. */
  onInvalidated(): void
  onProgress(bytes: Buffer): void
  /** `close` waits for this request. Never rejects. */
  onRequest(reply: Promise<unknown>): void
}

/** How the result is stored. Written by the work. */
export interface ResultPolicy {
  /** ms; that of the call when absent. */
  ttl?: number | undefined
  /** The result is not stored, and for so long callers run their own works, ms. */
  bypassFor?: number | undefined
}

/** How long an outcome stays readable to parked flights, ms: longer than the longest pause between two of their polls. */
export function outcomeRetention(lease: number): number {
  return Math.ceil(lease * 1.25 + 1000)
}
