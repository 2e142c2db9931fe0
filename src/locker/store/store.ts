/**
 * The store port of the Locker: the atomic transitions of a resource's record, and the messages that they cause. Two
 * adapters implement it: MemoryStore (on record.ts, the executable specification) and RedisStore (the same, as scripts).
 */

/** How a grant ended, as the record keeps it and as messages carry it. */
export interface Outcome {
  kind: 'value' | 'error'
  /** The grant that it was accepted under. */
  fence: number
  /** The encoded value, or the encoded failure. */
  bytes: Buffer
  /** How long it is still fresh, ms. 0: only flights that were parked for it may read it. */
  ttlLeft: number
  /** Invalidated while its work ran: only for callers that waited before the invalidation. */
  invalidated: boolean
  /** How long it is kept beyond `ttlLeft` for callers that accept stale, ms. */
  staleLeft: number
  /** Its tags with their versions, as its writer serialized them; '' when it has none. */
  tags: string
}

/** A value that is stale, and still kept for callers that accept stale. */
export interface StaleValue {
  fence: number
  bytes: Buffer
  /** For how long it has been stale, ms. */
  staleFor: number
  /** How long it is still kept, ms. */
  staleLeft: number
  tags: string
}

/** An attempt to become the processor. */
export interface Claim {
  /** Name of the record. */
  record: string
  /** Identifies the flight that claims; messages to it echo the nonce. */
  nonce: string
  /** Counts the claims of this flight. Nonce and attempt make the token of the grant. */
  attempt: number
  /** Lease to take, ms. */
  lease: number
  /** Only results of grants after this fence. */
  afterFence: number
  /** The fence under which this flight is parked; 0 when it is not. */
  parkedFence: number
  /** Ignores the present results: only a new grant, or the end of the present one, answers this claim. */
  refresh: boolean
  /** Whether this flight, parked behind a holder whose lease expired, may replace that holder. */
  takeover: boolean
  /** A value that has been stale for less than this, ms, comes beside the reply; 0: none does. */
  maxStaleness: number
  /** While another process holds the lease, a value that has been stale for less than this, ms, answers the claim. */
  acceptStaleWhileHeld: number
  /** Whether the reply may be 'bypass'. */
  allowBypass: boolean
  /** Compare and set: grants only if this is the last fence and its grant was not invalidated; 0: unconditional. */
  expectedFence: number
  /** Is never granted: without a result to read it parks, also when nobody holds the lease. */
  waitOnly: boolean
  /** Trace context of the claimer, for the flights that will park behind it. */
  trace: string
}

export type ClaimReply = (
  | { status: 'done'; outcome: Outcome }
  /** The stale value answers the claim, because another process revalidates it. */
  | { status: 'stale'; stale: StaleValue }
  /** The claimer is the processor now (or already, when the claim was repeated). */
  | { status: 'granted'; fence: number; takeover: boolean }
  /**
   * The last result was not to be stored: callers run their works side by side and do not wait for each other
   * (hit-for-pass). `fence` is the last one. A flight that was parked still is: it must claim again, or unpark.
   */
  | { status: 'bypass'; fence: number }
  /**
   * Another process is the processor, or nobody is and the claim is `waitOnly`; the claimer will be notified. `fence`: of
   * the grant that it waits for, or the least that this can have. `leaseLeft`: 0 when no lease is held. `afterFence`
   * replaces the one of the claim.
   */
  | {
      status: 'parked'
      fence: number
      leaseLeft: number
      afterFence: number
      trace: string
      progress: Buffer | undefined
    }
  /** The lease that this flight was parked behind has expired, and `takeover` is false. */
  | { status: 'lease-expired' }
  /** Too many flights are parked already. */
  | { status: 'overloaded' }
  /** The last fence is not `expectedFence`, or its grant was invalidated. */
  | { status: 'conflict' }
  /** No fence above the last one is an exact number. Happens only if the record was written by hand. */
  | { status: 'exhausted' }
) & {
  /** A stale value, if there is one within `maxStaleness`. Never beside a fresh value. */
  stale?: StaleValue | undefined
}

/** A grant, as its holder names it. */
export interface GrantRef {
  record: string
  /** Inbox of the process that it was granted to. Default: that of this process. */
  inbox?: string | undefined
  nonce: string
  attempt: number
  fence: number
}

export interface Settlement extends GrantRef {
  /** 'unstored': a value for the flights that are parked; the stored value stays as it is. */
  kind: 'value' | 'error' | 'unstored'
  bytes: Buffer
  /** How long it is fresh, ms. */
  ttl: number
  /** Of a value: how long it is kept beyond that for callers that accept stale, ms. */
  keepStale: number
  tags: string
  /** Of 'unstored': for how long later claims are answered with 'bypass', ms. */
  bypassFor: number
  /** How long flights that were parked may read it, and repeated settlements are recognised, ms. */
  outcomeRetention: number
}

export interface Release extends GrantRef {
  outcomeRetention: number
  /**
   * The lease expires now instead of being given up, as if its holder had died. All parked flights are notified, because
   * those that may not take over must reject. Ignored beside `regrant`.
   */
  asExpired: boolean
  /** Grants the lease anew, in the same step, to this attempt of the same flight. */
  regrant: { attempt: number; lease: number } | undefined
}

/** `held` is false when the lease is lost. `invalidated`: the value of this grant will not be stored. */
export interface RenewReply {
  held: boolean
  invalidated: boolean
}

/** `accepted` is false when the lease is lost. `invalidated`: the value was not stored. */
export interface SettleReply {
  accepted: boolean
  invalidated: boolean
}

/** `released` is false when the lease is lost. `fence` is the one of the regrant, if there was one. */
export interface ReleaseReply {
  released: boolean
  fence: number | undefined
}

/** `invalidatedGrant`: the fence of the running grant if this call was the first to invalidate it, else 0. */
export interface InvalidateReply {
  invalidatedGrant: number
}

/** The state of a record, read without changing it. */
export interface Snapshot {
  lease: { holder: string; fence: number; leaseLeft: number; parked: number } | undefined
  value: { fence: number; age: number; ttlLeft: number; staleLeft: number } | undefined
}

/** A message to a parked flight, or (the last) to the processor. */
export type Notice =
  | { kind: 'outcome'; outcome: Outcome }
  /** There is an outcome that is too large for a message: the flight must read the record. */
  | { kind: 'too-large' }
  /** The resource is free: the flight must claim. */
  | { kind: 'free' }
  | { kind: 'progress'; bytes: Buffer }
  /** Only finds out whether the inbox exists. */
  | { kind: 'probe' }
  /** The last parked flight has left. */
  | { kind: 'unwanted' }

/** Events of a store that concern every flight and cache of this process. */
export interface StoreListener {
  /** Messages arrive from now on; some may have been missed. */
  up(): void
  /** Messages may have been missed since up to 2 s ago. */
  down(): void
  /** Results of `key` accepted under `fence` or an earlier one must not be served any more. */
  invalidated(key: string, fence: number): void
  /** Results that carry an earlier version of the tag must not be served any more. */
  tagInvalidated(tag: string, version: number): void
}

/**
 * The claiming flight. It is called back instead of given a promise, so that a claim answered by a result costs little.
 * Each claim ends in `claimed` or `claimFailed`. `claimed` may also follow `claimFailed`, with a reply that came too
 * late: the transition has happened all the same.
 */
export interface Claimer {
  /** The claim is about to be sent: the reply is newer than anything before this call. */
  sending(): void
  claimed(reply: ClaimReply, attempt: number): void
  /** With UnavailableError, OverloadedError or ClosedError. */
  claimFailed(error: unknown, attempt: number): void
  /** A message for the nonce of the claim, at any time from the claim to `ignore`. */
  notice(notice: Notice): void
}

/**
 * `within`: how long the store may take to answer, ms. Promises reject with UnavailableError, OverloadedError or ClosedError
 * when it cannot be used.
 */
export interface Store {
  claim(claim: Claim, within: number, claimer: Claimer): void
  /** Extends the lease. */
  renew(grant: GrantRef & { lease: number }, within: number): Promise<RenewReply>
  /** Publishes a value or a failure. Idempotent. */
  settle(settlement: Settlement, within: number): Promise<SettleReply>
  /** Gives the lease up. */
  release(release: Release, within: number): Promise<ReleaseReply>
  /** Gives the lease up if no flight is parked; otherwise the holder is notified ('unwanted') when the last one leaves. */
  releaseIfUnwanted(
    grant: GrantRef & { outcomeRetention: number },
    within: number,
  ): Promise<'released' | 'wanted' | 'lost'>
  /** Removes a parked flight from the record. */
  unpark(key: string, nonce: string, within: number): Promise<void>
  /** Sends progress to all parked flights, and keeps it for those that park later. Returns whether the lease is held. */
  progress(grant: GrantRef & { bytes: Buffer }, within: number): Promise<boolean>
  /** Removes the results of a key, and invalidates its running grant. */
  invalidate(key: string, within: number): Promise<InvalidateReply>
  snapshot(key: string, within: number): Promise<Snapshot>
  /** Reads the value if it is fresh, without claiming. `sending` is called as that of a {@link Claimer}. */
  readFresh(key: string, within: number, sending?: () => void): Promise<Outcome | undefined>
  /** The versions of tags; 0: it has none. With `keepFor` (ms), missing versions are made, and all are kept so long. */
  tagVersions(tags: readonly string[], keepFor: number, within: number): Promise<number[]>
  /** Gives a tag a new version, in every process. */
  invalidateTag(tag: string, within: number): Promise<void>

  /** Whether this server can have granted a fence. One that was written by hand counts for its own record alone. */
  isPlausibleFence(fence: number): boolean
  /** The id of the inbox of this process: part of what names its grants. */
  readonly inbox: string
  /** Whether messages arrive. */
  readonly subscribed: boolean
  /** Ends the notices for a nonce. */
  ignore(nonce: string): void
  /** Adds a listener; the returned function removes it. */
  listen(listener: StoreListener): () => void
  /** Ends this process's use of the store. Leases must have been settled or released before. */
  close(): void
}

/**
 * A record lives for as long after a `waitOnly` claim has parked on it, ms: a flight that only waits claims again before
 * that, every {@link WAIT_POLL} ms.
 */
export const WAIT_RETENTION: number = 60_000

/** How often a flight that only waits claims again while no lease is held, ms. */
export const WAIT_POLL: number = 20_000

/** `maxStaleness` of a claim that takes any stale value: the waiters decide. */
export const ANY_STALENESS: number = Number.MAX_SAFE_INTEGER
