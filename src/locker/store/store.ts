/**
 * The store port of the Locker: the atomic transitions of a resource's record, and the messages that they cause. Two
 * adapters: MemoryStore (record.ts, the executable specification) and RedisStore (the same, as scripts).
 */

/** What became of a grant, as it is kept and as it is told. */
export interface Outcome {
  kind: 'value' | 'error'
  /** The grant that it was accepted under. */
  fence: number
  /** The encoded value, or the encoded failure. */
  bytes: Buffer
  /** How long it may still be served to anybody, ms; 0: only to those who waited for it. */
  fresh: number
  /** Invalidated while its work ran: only for those who waited before that. */
  doomed: boolean
  /** How long it is kept beyond `fresh`, for those who are content with what is over, ms. */
  stale: number
  /** Its tags with their epochs, as its writer noted them; '' when it has none. */
  tags: string
}

/** A value that is over, and still kept. */
export interface Offer {
  fence: number
  bytes: Buffer
  /** For how long it has been over, ms. */
  past: number
  /** For how long it is kept yet, ms. */
  left: number
  tags: string
}

/** An attempt to become the processor. */
export interface Claim {
  /** Name of the record. */
  key: string
  /** The flight that claims: an id that messages to it will echo. */
  nonce: string
  /** Counts the claims of this flight; nonce and attempt make the token of the grant. */
  attempt: number
  /** Lease to take, ms. */
  lease: number
  /** Only what was begun under a grant above this fence is wanted. */
  after: number
  /** The fence under which this flight is parked; 0 when it is not. */
  parked: number
  /** Whether what is there already is not wanted. */
  refresh: boolean
  /** Whether a dead holder may be replaced by one who waited for it. */
  takeover: boolean
  /** How long ago a value may have been over that is offered besides, ms; 0: none is wanted. */
  tolerance: number
  /** As long as another renews it, what has been over for less than this (ms) will do: no parking for it. */
  serve: number
  /** Whether it may be told to go alone, because what is computed here is not kept anyway. */
  pass: boolean
  /** Grant it only while this is the last fence, and nothing was invalidated since it was granted; 0: in any case. */
  only: number
  /** Trace context of the claimer, kept for those who will wait for it. */
  trace: string
}

export type ClaimReply = Answer & {
  /** What is over, and would do for some. Not beside a value. */
  offer?: Offer | undefined
}

type Answer =
  /** There is an outcome. */
  | { status: 'done'; outcome: Outcome }
  /** What is offered will do: another renews it. */
  | { status: 'stale'; offer: Offer }
  /** The claimer is the processor now (or already, when the claim was repeated). */
  | { status: 'granted'; fence: number; takeover: boolean }
  /**
   * What is computed here has not been kept lately: nobody waits for anybody. `fence`: the last one. Who was parked still
   * is: it must claim again, or leave.
   */
  | { status: 'pass'; fence: number }
  /** Another is; the claimer will be told. `after` replaces the claim's own from now on. */
  | {
      status: 'parked'
      fence: number
      left: number
      after: number
      trace: string
      progress: Buffer | undefined
    }
  /** The holder that this flight waited for is dead, and `takeover` is false. */
  | { status: 'abandoned' }
  /** Too many are parked already. */
  | { status: 'overloaded' }
  /** The last fence is another than `only`, or was invalidated. */
  | { status: 'refused' }
  /** The record can grant no more: no fence above its last one is exact. Only who writes to Redis by hand brings that about. */
  | { status: 'exhausted' }

/** A grant, as its holder names it. */
export interface Grant {
  key: string
  nonce: string
  attempt: number
  fence: number
}

export interface Settlement extends Grant {
  /** 'unkept': a value for those who wait alone; what is kept stays as it is. */
  kind: 'value' | 'error' | 'unkept'
  bytes: Buffer
  /** How long it is served to everybody, ms. */
  ttl: number
  /** Of a value: how long it is kept beyond that, ms. */
  stale: number
  tags: string
  /** Of 'unkept': for how long nobody is to wait for anybody, ms. */
  bypassFor: number
  /** How long it stays readable to those who were parked, ms, and is remembered against repetition. */
  linger: number
}

export interface Release extends Grant {
  linger: number
  /**
   * Held for too long: its lease ends now, as if its holder had died. All who are parked are told, since those who do not
   * replace a dead holder must not wait on. Without effect beside `next`.
   */
  expired: boolean
  /** Grant it anew, in the same step, to this attempt of the same flight. */
  next: { attempt: number; lease: number } | undefined
}

/** What is said about a record without changing it. */
export interface Snapshot {
  lease: { holder: string; fence: number; left: number; parked: number } | undefined
  value: { fence: number; age: number; fresh: number; stale: number } | undefined
}

/** A message to a parked flight. */
export type Notice =
  | { kind: 'outcome'; outcome: Outcome }
  /** There is an outcome that is too large for a message. */
  | { kind: 'more' }
  /** The resource is free. */
  | { kind: 'free' }
  | { kind: 'progress'; bytes: Buffer }
  /** Whether anybody is there. */
  | { kind: 'probe' }
  /** To the processor: nobody is parked any more. */
  | { kind: 'unwanted' }

/** What a store tells to everything that uses it in this process. */
export interface StoreListener {
  /** Messages arrive from now on; some may have been missed. */
  up(): void
  /** Messages may have been missed since up to 2 s ago. */
  down(): void
  /** What was accepted for `key` under `fence` or an earlier one is no longer to be served. */
  drop(key: string, fence: number): void
  /** What was noted for a tag before `epoch` is no longer to be served. */
  dropTag(tag: string, epoch: number): void
}

/** How long a call may take. */
export interface CallLimits {
  /** Longest wait for the store, ms. */
  within: number
}

/**
 * Who claims, and is called back: a claim answered by a result must cost little, so no promise is made for it. For each
 * claim, `claimed` or `unclaimed` is called; `claimed` also after `unclaimed`, with a reply that came too late: what it
 * did still stands.
 */
export interface Claimer {
  /** It is about to go out: whatever happened before this is older than the reply. */
  sending(): void
  claimed(reply: ClaimReply, attempt: number): void
  /** With UnavailableError, OverloadedError or ClosedError. */
  unclaimed(error: unknown, attempt: number): void
  /** A message for the nonce of the claim, at any time from the claim to `ignore`. */
  notice(notice: Notice): void
}

/** Promises reject with UnavailableError, OverloadedError or ClosedError when the store cannot be used. */
export interface Store {
  /** Calls back within `within` ms. */
  claim(claim: Claim, within: number, claimer: Claimer): void
  /** Extends the lease. `held` is false when it is lost; `doomed`: its value will not be kept. */
  renew(grant: Grant & { lease: number }, limits: CallLimits): Promise<{ held: boolean; doomed: boolean }>
  /** Publishes a value or a failure. `accepted` is false when the lease is lost. Repeated, it has the effect of one. */
  settle(settlement: Settlement, limits: CallLimits): Promise<{ accepted: boolean; doomed: boolean }>
  /** Gives the lease up. The fence is that of the next grant, where one was asked for; undefined when it is lost. */
  release(release: Release, limits: CallLimits): Promise<{ released: boolean; fence: number | undefined }>
  /** Gives the lease up if nobody is parked; if somebody is, the last of them to leave will be made known ('unwanted'). */
  abandon(grant: Grant & { linger: number }, limits: CallLimits): Promise<'released' | 'wanted' | 'lost'>
  /** Takes a parked flight off the record. */
  unpark(key: string, nonce: string, limits: CallLimits): Promise<void>
  /** Shows `bytes` to those who are parked. */
  progress(grant: Grant & { bytes: Buffer }, limits: CallLimits): Promise<void>
  /** Forgets what is kept. `doomed`: the fence of the running grant, if this call was the first to invalidate it; or 0. */
  invalidate(key: string, limits: CallLimits): Promise<{ doomed: number }>
  snapshot(key: string, limits: CallLimits): Promise<Snapshot>
  /**
   * The value, if there is a fresh one: read without claiming anything. `sending` is called when it goes out: whatever
   * happened before is older than the reply.
   */
  find(key: string, limits: CallLimits, sending?: () => void): Promise<Outcome | undefined>
  /** The epochs of tags; 0: it has none. With `keepFor` (ms), each has one, and keeps it at least that long. */
  epochs(tags: readonly string[], keepFor: number, limits: CallLimits): Promise<number[]>
  /** Begins a new epoch of a tag, everywhere. */
  invalidateTag(tag: string, limits: CallLimits): Promise<void>

  /** Whether a fence may have been granted in the course of things. Another was written by hand: it counts in its record alone. */
  explains(fence: number): boolean
  /** Whether messages arrive. */
  readonly subscribed: boolean
  /** No more notices for a nonce. */
  ignore(nonce: string): void
  /** Adds a listener; the returned function takes it away. */
  listen(listener: StoreListener): () => void
  /** Ends this process's use of it. What it holds must have been settled or released. */
  close(): void
}

/** Flights that may be parked on one record, unless configured otherwise. */
export const MAX_PARKED: number = 10_000

/** Tolerance of a claim that is offered whatever is kept: those who wait decide. */
export const ANY_AGE: number = Number.MAX_SAFE_INTEGER

/** Above this many bytes a value is not sent in messages: those who wait read it from the record. */
export const MESSAGE_LIMIT: number = 64 * 1024
