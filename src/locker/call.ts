import { type Codec, decodeWith, sizeOf } from '../kernel/codec/codec.ts'
import { newId } from '../kernel/keys.ts'
import type { AsyncContext } from '../kernel/time.ts'
import { parseTagVersions } from './cache/tag-guard.ts'
import type { LockerContext } from './locker-context.ts'
import type { AnyRunOptions, OnUnavailable, ResolvedOptions } from './options.ts'
import { outcomeRetention } from './processor/lease-state.ts'
import type { Claim, Claimer, ClaimReply, Outcome, Settlement } from './store/store.ts'

/** The context of a work: its key, its lease, and methods that decide how its result is kept. */
export interface WorkContext {
  /** The key to compute. */
  readonly key: string
  /**
   * Aborts with LeaseLostError when the lease is lost, with ClosedError at the end of `close`, and with AbortedError when
   * `abortUnwanted` is set and no caller waits any longer.
   */
  readonly signal: AbortSignal
  /** Fencing token of the grant. It only grows, so a store can refuse writes with an older one. 0 when unshared. */
  readonly fence: number
  /** Whether the result will reach other processes. False when Redis is unavailable, or during a bypass (see `noStore`). */
  readonly shared: boolean
  /**
   * Sends a value to the `onProgress` of all waiters, in every process. After several values in quick succession only the last
   * may arrive. @throws CodecError when it cannot be encoded, or is too large.
   */
  progress(value: unknown): void
  /** How long the result is kept, ms, instead of the option `ttl`. @throws TypeError when it is no duration. */
  setTtl(ttl: number): void
  /**
   * Gives the result to the callers that wait, and does not store it. The stored result stays as it is. For `bypassFor` ms
   * from then on (10 000 by default), callers do not wait for each other: each runs its own work at once (hit-for-pass). The
   * first such work that does not call `noStore` has its result stored, which ends the bypass. With 0 there is no bypass.
   * @throws TypeError when an option is invalid.
   */
  noStore(options?: { bypassFor?: number | undefined }): void
}

/** Computes a result. */
export type Work<T> = (context: WorkContext) => T | PromiseLike<T>

/** A kind of results. Its keys and cache names never collide with those of other kinds. */
export interface Namespace {
  /** Identifies it in keys. 'k' are the results of users. */
  readonly letter: string
  readonly codec: Codec
  /** What callers receive instead of a value. `until`: when it stops being fresh, by the clock. Default: the value. */
  readonly mapResult?: ((value: unknown, outcome: Outcome, until: number) => unknown) | undefined
  /** What callers receive instead of a result that is served although it may be invalid. Default: the result. */
  readonly asUnverified?: ((result: unknown) => unknown) | undefined
}

/** The key of a call, its names, and its work. */
export interface CallTarget {
  key: string
  /** Name of the record. */
  record: string
  /** Name in the in-process cache. */
  name: string
  /** Names of the records of its tags. */
  tags: readonly string[]
  /** Undefined unless the call is a `run`. */
  work: Work<unknown> | undefined
  kind: CallKind
}

/**
 * run: has a work. request: receives a Lease. token: receives a lease that this process does not renew. wait: is never
 * granted the lease.
 */
export type CallKind = 'run' | 'request' | 'token' | 'wait'

/** A decoded value, as callers receive it, and the bytes that it takes in memory. */
export interface DecodedResult {
  result: unknown
  bytes: number
}

const NO_TAGS: readonly string[] = []

/** Options of a background revalidation: it has no deadline, and does not accept the stale result that it replaces. */
const REVALIDATION: AnyRunOptions = {
  timeout: Number.POSITIVE_INFINITY,
  softTimeout: Number.POSITIVE_INFINITY,
  staleWhileRevalidate: 0,
  staleIfError: 0,
  onUnavailable: 'fail',
}

/** The options of a locker that are the defaults of its calls. */
type CallDefaults = Pick<
  ResolvedOptions,
  | 'timeout'
  | 'lease'
  | 'ttl'
  | 'errorTtl'
  | 'staleWhileRevalidate'
  | 'staleIfError'
  | 'softTimeout'
  | 'onUnavailable'
  | 'maxUnshared'
>

/** One call of `run`, `request` or `wait`, with every option resolved. A class instead of a literal: see kernel/collections.ts. */
export class Call implements CallTarget {
  key: string
  record: string
  name: string
  tags: readonly string[]
  work: Work<unknown> | undefined
  kind: CallKind
  locker: LockerContext
  codec: Codec
  mapResult: Namespace['mapResult']
  asUnverified: Namespace['asUnverified']
  timeout: number
  signal: AbortSignal | undefined
  lease: number
  ttl: number
  errorTtl: number
  refresh: boolean
  onProgress: ((value: unknown) => void) | undefined
  onParked: ((isHeld: boolean) => void) | undefined
  /** Only results of grants after this fence. */
  afterFence: number
  /** ms; 0: does not accept stale results at once. */
  staleWhileRevalidate: number
  staleIfError: number
  /** ms; Infinity: never. */
  softTimeout: number
  /** How long beyond its ttl its result is kept for callers that accept stale, ms. */
  keepStale: number
  abortUnwanted: boolean
  onUnavailable: OnUnavailable
  /** Unshared works that may run at once. */
  maxUnshared: number
  /** A background revalidation: no caller waits for it. */
  background = false
  /** The async context of its work and hooks. Written when it joins a flight. */
  context: AsyncContext | undefined

  /** Of validated options. `defaults`: for those that are absent. */
  constructor(
    target: CallTarget,
    namespace: Omit<Namespace, 'letter'>,
    locker: LockerContext,
    options: AnyRunOptions,
    defaults: CallDefaults,
  ) {
    this.key = target.key
    this.record = target.record
    this.name = target.name
    this.tags = target.tags
    this.work = target.work
    this.kind = target.kind
    this.locker = locker
    this.codec = namespace.codec
    this.mapResult = namespace.mapResult
    this.asUnverified = namespace.asUnverified
    this.timeout = options.timeout ?? defaults.timeout
    this.signal = options.signal
    this.lease = Math.ceil(options.lease ?? defaults.lease)
    this.ttl = options.ttl ?? defaults.ttl
    this.errorTtl = options.errorTtl ?? defaults.errorTtl
    this.refresh = options.refresh ?? false
    this.onProgress = options.onProgress
    this.onParked = options.onParked
    this.afterFence = options.afterFence ?? 0
    this.staleWhileRevalidate = options.staleWhileRevalidate ?? defaults.staleWhileRevalidate
    this.staleIfError = options.staleIfError ?? defaults.staleIfError
    this.softTimeout = options.softTimeout ?? defaults.softTimeout
    this.keepStale = Math.ceil(Math.max(this.staleWhileRevalidate, this.staleIfError))
    this.abortUnwanted = options.abortUnwanted ?? false
    const onUnavailable = options.onUnavailable ?? defaults.onUnavailable
    this.onUnavailable = canProcess(target.kind) ? onUnavailable : withoutLocal(onUnavailable)
    this.maxUnshared = options.maxUnshared ?? defaults.maxUnshared
  }

  /** What its caller receives when there is a result. */
  presented(result: unknown): unknown {
    return this.kind === 'run' || this.kind === 'wait' ? result : { status: 'done', result }
  }

  /** Whether it rejects unshared results. */
  get requiresShared(): boolean {
    return this.onUnavailable === 'fail' || this.onUnavailable === 'cached'
  }

  /** The background call that revalidates the stale result that this call is served. */
  revalidation(): Call {
    const call = new Call(this, this, this.locker, { ...REVALIDATION, afterFence: this.afterFence }, this)
    call.keepStale = this.keepStale
    call.abortUnwanted = this.abortUnwanted
    call.background = true
    return call
  }

  /**
   * Decodes the value of an outcome whose ttl counts from `freshFrom`. The server counts whole ms: the value is fresh for up to
   * 1 ms less.
   * @throws CodecError
   */
  read(outcome: Outcome, freshFrom: number): DecodedResult {
    const value = decodeWith(this.codec, outcome.bytes, this.key)
    const until = freshFrom + outcome.ttlLeft - 1
    const result = this.mapResult ? this.mapResult(value, outcome, until) : value
    return { result, bytes: sizeOf(this.codec, value, outcome.bytes.length) }
  }

  /** Caches an outcome in this process, unless its ttl is 0. */
  cacheOutcome(
    decoded: DecodedResult,
    { fence, tags, ttlLeft, staleLeft }: Outcome,
    freshFrom: number,
  ): void {
    if (ttlLeft === 0) return
    const until = freshFrom + ttlLeft - 1
    this.cacheResult(decoded, fence, tags, until, until + staleLeft)
  }

  /** Caches a result in this process, if it has a cache. `tags`: serialized versions. */
  cacheResult(
    { result, bytes }: DecodedResult,
    fence: number,
    tags: string,
    freshUntil: number,
    staleUntil: number,
  ): void {
    const { cache, store } = this.locker
    // Under a fence that no server has granted, later results could not replace it, and invalidations would not remove it.
    if (!cache || !store.isPlausibleFence(fence)) return
    const names = tags === '' ? NO_TAGS : [...parseTagVersions(tags).keys()]
    cache.set(this.name, { record: this.record, result, bytes, fence, freshUntil, staleUntil, tags: names })
  }

  /**
   * Stores a value that exists already, under a claim of its own. Returns false if another holds the claim of the key.
   * `expectedFence`: only if this is the last fence and its grant was not invalidated; 0: in any case.
   * @throws UnavailableError, OverloadedError, ClosedError
   */
  storeUnclaimed(
    bytes: Buffer,
    retention: Pick<Settlement, 'ttl' | 'keepStale' | 'tags'>,
    expectedFence: number,
  ): Promise<boolean> {
    const { record, lease } = this
    const { store, unavailableAfter } = this.locker
    const grant = { record, nonce: newId(), attempt: 1 }
    const claim: Claim = {
      ...grant,
      lease,
      afterFence: 0,
      parkedFence: 0,
      refresh: true,
      takeover: true,
      maxStaleness: 0,
      acceptStaleWhileHeld: 0,
      allowBypass: false,
      expectedFence,
      waitOnly: false,
      trace: '',
    }
    const settle = async (reply: ClaimReply): Promise<boolean> => {
      if (reply.status === 'parked') await store.unpark(record, grant.nonce, unavailableAfter)
      if (reply.status !== 'granted') return false
      const terms = { kind: 'value', outcomeRetention: outcomeRetention(lease), bypassFor: 0 } as const
      const settlement: Settlement = { ...grant, ...retention, ...terms, fence: reply.fence, bytes }
      return (await store.settle(settlement, unavailableAfter)).accepted
    }
    return new Promise<boolean>((resolve, reject) => {
      const claimer: Claimer = {
        sending() {},
        notice() {},
        claimed: (reply) => settle(reply).then(resolve, reject),
        claimFailed: reject,
      }
      store.claim(claim, unavailableAfter, claimer)
    }).finally(() => store.ignore(grant.nonce))
  }
}

/** Whether the caller can compute the result in this process. */
function canProcess(kind: CallKind): boolean {
  return kind === 'run' || kind === 'request'
}

function withoutLocal(onUnavailable: OnUnavailable): OnUnavailable {
  return onUnavailable === 'cached' || onUnavailable === 'cached-local' ? 'cached' : 'fail'
}

/** A call that has joined a flight. */
export interface JoinedCall extends Call {
  context: AsyncContext
}
