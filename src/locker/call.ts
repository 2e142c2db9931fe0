import { type Codec, decodeWith, sizeOf } from '../kernel/codec/codec.ts'
import type { AsyncContext } from '../kernel/time.ts'
import { parseTagVersions } from './cache/tag-guard.ts'
import type { LockerContext } from './locker-context.ts'
import type { AnyRunOptions, OnUnavailable, ResolvedOptions } from './options.ts'
import type { Outcome } from './store/store.ts'
import type { Work } from './work.ts'

/** Resources of one kind: named apart from all others, in Redis and in this process's cache. */
export interface Namespace {
  /** One letter; 'k' are those of the locker itself. */
  readonly letter: string
  readonly codec: Codec
  /** What callers are given of a value; `until`: by the clock, as long as it is fresh. */
  readonly mapResult?: ((value: unknown, outcome: Outcome, until: number) => unknown) | undefined
  /** What callers are given of a result that is served although it may be invalid. */
  readonly asUnverified?: ((result: unknown) => unknown) | undefined
}

/** What is asked for. */
export interface CallTarget {
  key: string
  /** Name of the record. */
  record: string
  /** What it is called in the in-process cache. */
  name: string
  /** Names of the records of its tags. */
  tags: readonly string[]
  /** Of `run`; `request` has none: it is given the lease itself. */
  work: Work<unknown> | undefined
}

/** A value that was read: as callers receive it, and the memory that it takes, bytes. */
export interface DecodedResult {
  result: unknown
  bytes: number
}

const NO_TAGS: readonly string[] = []

/** Options of a call in the background: nobody waits for it, and what it renews would not do for it. */
const RENEWAL: AnyRunOptions = {
  timeout: Number.POSITIVE_INFINITY,
  softTimeout: Number.POSITIVE_INFINITY,
  staleWhileRevalidate: 0,
  staleIfError: 0,
  onUnavailable: 'fail',
}

/** The options of a locker that stand for those which a call was not given. */
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

/** One call of `run` or `request`, with every option resolved. A class instead of a literal: see kernel/collections.ts. */
export class Call implements CallTarget {
  key: string
  record: string
  name: string
  tags: readonly string[]
  work: Work<unknown> | undefined
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
  /** Only what was begun under a grant above this fence is wanted. */
  afterFence: number
  /** ms; 0: not content with what is over. */
  staleWhileRevalidate: number
  staleIfError: number
  /** ms; Infinity: none. */
  softTimeout: number
  /** How long beyond its ttl the result is kept for those who are content with what is over, ms. */
  keepStale: number
  abortUnwanted: boolean
  onUnavailable: OnUnavailable
  /** Works at once for this process alone. */
  maxUnshared: number
  /** Nobody waits for it: it renews what others are served meanwhile. */
  background = false
  /** In which its work and hooks run, once it was not served at once. */
  context: AsyncContext | undefined

  /** Of options that were checked. `own`: what stands for those that were not given. */
  constructor(
    asked: CallTarget,
    namespace: Omit<Namespace, 'letter'>,
    locker: LockerContext,
    options: AnyRunOptions,
    own: CallDefaults,
  ) {
    this.key = asked.key
    this.record = asked.record
    this.name = asked.name
    this.tags = asked.tags
    this.work = asked.work
    this.locker = locker
    this.codec = namespace.codec
    this.mapResult = namespace.mapResult
    this.asUnverified = namespace.asUnverified
    this.timeout = options.timeout ?? own.timeout
    this.signal = options.signal
    this.lease = Math.ceil(options.lease ?? own.lease)
    this.ttl = options.ttl ?? own.ttl
    this.errorTtl = options.errorTtl ?? own.errorTtl
    this.refresh = options.refresh ?? false
    this.onProgress = options.onProgress
    this.afterFence = options.afterFence ?? 0
    this.staleWhileRevalidate = options.staleWhileRevalidate ?? own.staleWhileRevalidate
    this.staleIfError = options.staleIfError ?? own.staleIfError
    this.softTimeout = options.softTimeout ?? own.softTimeout
    this.keepStale = Math.ceil(Math.max(this.staleWhileRevalidate, this.staleIfError))
    this.abortUnwanted = options.abortUnwanted ?? false
    this.onUnavailable = options.onUnavailable ?? own.onUnavailable
    this.maxUnshared = options.maxUnshared ?? own.maxUnshared
  }

  /** Whether it rejects a result that was made for this process alone. */
  get requiresShared(): boolean {
    return this.onUnavailable === 'fail' || this.onUnavailable === 'cached'
  }

  /** The call in the background that renews a stale result which this call is served. */
  renewal(): Call {
    const renewal = new Call(this, this, this.locker, { ...RENEWAL, afterFence: this.afterFence }, this)
    renewal.keepStale = this.keepStale
    renewal.abortUnwanted = this.abortUnwanted
    renewal.background = true
    return renewal
  }

  /**
   * Reads the value of an outcome whose ttl counts from `freshFrom`. The server counts whole ms, from the beginning of one.
   * @throws CodecError
   */
  read(outcome: Outcome, freshFrom: number): DecodedResult {
    const value = decodeWith(this.codec, outcome.bytes, this.key)
    const until = freshFrom + outcome.ttlLeft - 1
    const result = this.mapResult ? this.mapResult(value, outcome, until) : value
    return { result, bytes: sizeOf(this.codec, value, outcome.bytes.length) }
  }

  /** Keeps an outcome in the cache of this process as long as it is fresh or may be served stale. */
  cacheOutcome(
    decoded: DecodedResult,
    { fence, tags, ttlLeft, staleLeft }: Outcome,
    freshFrom: number,
  ): void {
    if (ttlLeft === 0) return
    const until = freshFrom + ttlLeft - 1
    this.cacheResult(decoded, fence, tags, until, until + staleLeft)
  }

  /** Keeps a result in the cache of this process, if it has one. `tags`: with their versions, as they are stored. */
  cacheResult(
    { result, bytes }: DecodedResult,
    fence: number,
    tags: string,
    freshUntil: number,
    staleUntil: number,
  ): void {
    const { cache, store } = this.locker
    // Later results could not replace it, nor invalidations reach it, under a fence that no server has granted.
    if (!cache || !store.isPlausibleFence(fence)) return
    const names = tags === '' ? NO_TAGS : [...parseTagVersions(tags).keys()]
    cache.set(this.name, { record: this.record, result, bytes, fence, freshUntil, staleUntil, tags: names })
  }
}

/** A call that was not served at once. */
export interface JoinedCall extends Call {
  context: AsyncContext
}
