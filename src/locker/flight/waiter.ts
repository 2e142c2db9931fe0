import { AbortedError, TimeoutError } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import type { AsyncContext, Timer } from '../../kernel/event-loop.ts'
import { checkLease, shown } from '../../kernel/options.ts'
import type { Deadlines } from '../../kernel/waiter.ts'
import { BaseWaiter } from '../../kernel/waiter.ts'
import type { Lease } from '../lease.ts'
import type { AnyRunOptions, ResolvedOptions } from '../options.ts'
import type { BatchRun } from '../processor/batch-run.ts'
import type { Outcome } from '../store/store.ts'
import type { LockerContext } from './locker-context.ts'

/** What a work is given. */
export interface WorkContext {
  /** The key that it computes. */
  readonly key: string
  /**
   * Aborts with LeaseLostError when the lease is lost, with ClosedError at the end of `close`, with AbortedError when
   * nobody waits any more and `abortUnwanted` is set.
   */
  readonly signal: AbortSignal
  /** Number of the grant: only grows, so a store that it writes to can refuse an older one. 0 when unshared. */
  readonly fence: number
  /** Whether the result will reach other processes: false when Redis is away, or when nobody waits for anybody (noStore). */
  readonly shared: boolean
  /** Shows a value to everyone who waits, in any process; several in quick succession may be merged into the last. */
  progress(value: unknown): void
  /** Decides how long the result is kept, ms, instead of the option `ttl`. Throws TypeError when it is no duration. */
  setTtl(ttl: number): void
  /**
   * The result goes to those who wait, and is not kept; what was kept before stays as it is. For `bypassFor` ms from then
   * on (10 000 unless given) nobody waits for anybody: each caller runs its own work at once. A work that then does not
   * call this has its result kept, and ends that. 0: later callers wait for one of them as ever.
   */
  noStore(options?: { bypassFor?: number | undefined }): void
}

/** What computes a result. */
export type Work<T> = (context: WorkContext) => T | PromiseLike<T>

/** What a caller has done while Redis is away. */
export type OnUnavailable = 'fail' | 'local' | 'cached' | 'cached-local'

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
  /** Of `runMany`: the keys that are claimed together. */
  batch?: BatchRun | undefined
  /** In which its work and hooks run, once it was not served at once. */
  context: AsyncContext | undefined

  /** Of options that were checked. `own`: what stands for those that were not given. */
  constructor(
    asked: CallTarget,
    namespace: Namespace,
    locker: LockerContext,
    options: AnyRunOptions,
    own: ResolvedOptions,
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
    this.lease = checkLease(options.lease ?? own.lease)
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
}

/** A call that was not served at once. */
export interface JoinedCall extends Call {
  context: AsyncContext
}

/** What `request` receives when there is a result. */
export interface Done<T> {
  status: 'done'
  result: T
}

/** Those among whom a waiter waits. */
export interface WaiterOwner {
  /** It was settled. */
  remove(waiter: Waiter): void
  /** It has waited for its `softTimeout`. */
  onSoftTimeout(waiter: Waiter): void
}

/** One caller that waits in a flight. */
export class Waiter extends BaseWaiter {
  readonly call: JoinedCall
  /** Order of arrival in its flight. */
  seq = 0
  /** Those among whom it waits. */
  #waiters: WaiterOwner | undefined
  readonly #softTimer: Timer | undefined
  /** It has waited for its `softTimeout`: something that is over would do. */
  softTimedOut = false
  /** Called when it waits no longer. */
  onEnd: (() => void) | undefined

  constructor(call: JoinedCall, deadlines: Deadlines) {
    const { timeout, softTimeout, locker } = call
    super(call, locker.clock, deadlines, call.background)
    this.call = call
    if (softTimeout < timeout)
      this.#softTimer = locker.clock.after(softTimeout, () => this.#onSoftTimeout(), true)
  }

  /** Whether it must not receive anything that an acknowledged invalidation might have preceded. */
  get strict(): boolean {
    return this.call.locker.strict
  }

  /** Leaves `among` when it waits no longer. */
  joined(waiters: WaiterOwner): void {
    this.#waiters = waiters
  }

  #onSoftTimeout(): void {
    this.softTimedOut = true
    this.#waiters?.onSoftTimeout(this)
  }

  expire(): void {
    const { key, timeout, locker } = this.call
    locker.counters.timeouts++
    this.reject(new TimeoutError(`No outcome of ${shown(key)} within ${timeout} ms`, { key }))
  }

  protected onAborted(cause: unknown): void {
    const { key, locker } = this.call
    locker.counters.aborts++
    this.reject(new AbortedError('The caller aborted its waiting', { key, cause }))
  }

  /** There is a result. `request` is given a Done. */
  override resolve(result: unknown): void {
    super.resolve(this.call.work ? result : { status: 'done', result })
  }

  /** It is the processor: of `request` only. */
  grant(lease: Lease): void {
    super.resolve(lease, 'lease')
  }

  protected onEnded(): void {
    this.#softTimer?.cancel()
    this.#waiters?.remove(this)
    this.onEnd?.()
  }
}
