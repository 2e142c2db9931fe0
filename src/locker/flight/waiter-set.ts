import {
  AbortedError,
  ClosedError,
  LockTimeoutError,
  OverloadedError,
  TimeoutError,
  UnavailableError,
} from '../../errors.ts'
import { ownedBytes } from '../../kernel/codec/binary.ts'
import { callHook, notifyProgress } from '../../kernel/hooks.ts'
import { shown } from '../../kernel/options.ts'
import { type Deadlines, microtask, type Timer } from '../../kernel/time.ts'
import { BaseWaiter } from '../../kernel/waiter.ts'
import type { JoinedCall } from '../call.ts'
import type { Lease } from '../lease.ts'
import type { Grant, LeaseWaiters } from '../processor/lease-state.ts'
import type { BatchRun } from '../processor/work-runner.ts'
import { TokenLease } from '../token-lease.ts'

/** A call that waits in a flight. */
export class Waiter extends BaseWaiter {
  readonly call: JoinedCall
  /** The keys of one `runMany` that are claimed together, if this is one of them. */
  readonly batch: BatchRun | undefined
  /** Its number in the order of arrival in its flight. Written by {@link WaiterSet.add}. */
  seq = 0
  /** Where it waits. Written by {@link WaiterSet.add}. */
  waiters: WaiterSet | undefined
  /** It has waited for its `softTimeout`: a stale result would do. */
  softTimedOut = false
  /** Called when it waits no longer. */
  onEnd: (() => void) | undefined
  readonly #softTimer: Timer | undefined

  constructor(call: JoinedCall, deadlines: Deadlines, batch: BatchRun | undefined) {
    const { timeout, softTimeout, locker } = call
    super(call, locker.clock, deadlines, call.background)
    this.call = call
    this.batch = batch
    if (softTimeout < timeout)
      this.#softTimer = locker.clock.after(softTimeout, () => this.#onSoftTimeout(), true)
  }

  /** Whether it must not receive a result that an acknowledged invalidation might have preceded. */
  get strict(): boolean {
    return this.call.locker.strict
  }

  #onSoftTimeout(): void {
    this.softTimedOut = true
    this.waiters?.onSoftTimeout(this)
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

  /** There is a result. `request` receives a Done. */
  override resolve(result: unknown): void {
    super.resolve(this.call.presented(result))
  }

  /** It is the processor. Of `request` only. */
  grant(lease: Lease): void {
    super.resolve(lease, 'lease')
  }

  /** It has the lease, which this process does not renew. Of `request` only. */
  grantToken(grant: Grant): void {
    super.resolve(new TokenLease(this.call, grant, this.call.locker.store.inbox), 'lease')
  }

  protected onEnded(): void {
    this.#softTimer?.cancel()
    this.waiters?.remove(this)
    this.onEnd?.()
  }
}

/** A result that is stale, and kept for callers that accept it. */
export interface StaleResult {
  readonly result: unknown
  /** The memory that it takes. */
  readonly bytes: number
  readonly fence: number
  /** By the clock: since when it has been stale, and until when it may be served at all. */
  readonly staleSince: number
  readonly staleUntil: number
  /** Names of the records of its tags. */
  readonly tags: readonly string[]
  /** The last waiter that had joined when it was known to be valid. */
  readonly seq: number
}

/** A request of a flight. Made by a constructor: see kernel/collections.ts. */
class SentRequest {
  /** When it was sent, by the clock. */
  readonly at: number
  /** The last waiter that had joined then. */
  readonly seq: number
  /** Since then no message was missed, and none invalidated the key. */
  keyUnchanged: boolean
  /** Since then no message was missed, and none invalidated any tag. */
  tagsUnchanged: boolean

  constructor(at: number, seq: number, subscribed: boolean) {
    this.at = at
    this.seq = seq
    this.keyUnchanged = subscribed
    this.tagsUnchanged = subscribed
  }
}

const NOTHING_SENT = new SentRequest(0, 0, false)

/** What a flight is told of its waiters. */
export interface WaiterSetListener {
  /** A waiter was settled. */
  onWaiterLeft(): void
  onSoftTimeout(waiter: Waiter): void
}

/**
 * The waiters of a flight, in the order of their arrival, and what they were shown or may be served meanwhile.
 *
 * Read your invalidations: a strict caller, one without an in-process cache, must not receive a result if an invalidation
 * of it was acknowledged before that caller asked. The waiters are numbered as they join. A request that is sent after
 * waiter n joined proves, if its reply shows that the result is not invalidated, that it was valid at some moment after n
 * joined: waiters up to n may receive it. The others must ask the store themselves.
 *
 * ```
 * waiters join    1   2       3            4
 * request             |- sent ----- reply: valid -|
 *                 validated: 1, 2      not: 3, 4
 * ```
 *
 * The reply may be kept in the cache of this process only if, since the request was sent, messages arrived and none of them
 * invalidated it. The same holds for an outcome that comes after the reply, by a message or from the work of this process.
 * It may also overtake the reply to the next request, and be older than that request: so the last request that was
 * answered counts, not the last one that was sent.
 */
export class WaiterSet implements LeaseWaiters {
  /** Written by stale-serving.ts. */
  stale: StaleResult | undefined
  /** It was served on the promise that the work of this flight revalidates it. Written by stale-serving.ts. */
  revalidationPromised = false
  /** Number of the last waiter that joined. Written by `add`. */
  lastSeq = 0
  readonly #waiters = new Set<Waiter>()
  readonly #listener: WaiterSetListener
  /** The last progress of the work that is waited for. */
  #progress: Buffer | undefined
  /** Whether a process holds the lease, as far as is known; undefined: it is not known. */
  #isHeld: boolean | undefined
  #validatedSeq = 0
  /** Written by `onSent`. */
  #lastSent: SentRequest = NOTHING_SENT
  /** Written by `onAnswered`, when the reply may be used. */
  #lastAnswered: SentRequest = NOTHING_SENT

  constructor(listener: WaiterSetListener) {
    this.#listener = listener
  }

  get size(): number {
    return this.#waiters.size
  }

  /** When the last request that was answered was sent, by the clock. */
  get sentAt(): number {
    return this.#lastAnswered.at
  }

  /** The last waiter that had joined then. */
  get sentSeq(): number {
    return this.#lastAnswered.seq
  }

  get areGone(): boolean {
    return this.#waiters.size === 0 && !this.revalidationPromised
  }

  /** The waiter that has waited longest. */
  get first(): Waiter | undefined {
    const [first] = this.#waiters
    return first
  }

  /** Those of the moment at which the iteration begins. */
  [Symbol.iterator](): IterableIterator<Waiter> {
    return [...this.#waiters][Symbol.iterator]()
  }

  /** Adds a waiter, which stays until it is settled. */
  add(waiter: Waiter): void {
    waiter.seq = ++this.lastSeq
    waiter.waiters = this
    this.#waiters.add(waiter)
    if (this.#progress) notify(waiter, this.#progress)
    if (this.#isHeld !== undefined) notifyParked(waiter, this.#isHeld)
  }

  /** Removes a waiter that goes on waiting elsewhere. */
  release(waiter: Waiter): void {
    this.#waiters.delete(waiter)
  }

  /** Called by a waiter when it is settled. */
  remove(waiter: Waiter): void {
    this.#waiters.delete(waiter)
    this.#listener.onWaiterLeft()
  }

  onSoftTimeout(waiter: Waiter): void {
    this.#listener.onSoftTimeout(waiter)
  }

  /** Those that may receive the outcome which the store had when it was last asked. */
  receivers(): Waiter[] {
    return [...this.#waiters].filter(({ strict, seq }) => !strict || this.isValidated(seq))
  }

  /** A request is sent. `subscribed`: whether messages arrive. */
  onSent(now: number, subscribed: boolean): void {
    this.#lastSent = new SentRequest(now, this.lastSeq, subscribed)
  }

  /** The reply to the last request is here, and its tags were checked. */
  onAnswered(): void {
    this.#lastAnswered = this.#lastSent
  }

  /** A work begins without a request. */
  onBegun(now: number, subscribed: boolean): void {
    this.onSent(now, subscribed)
    this.onAnswered()
  }

  /** Results of grants up to `fence` were invalidated; 0: some may be, without a message. */
  onInvalidated(fence: number): void {
    this.dropStale(fence)
    this.#lastSent.keyUnchanged = false
    this.#lastAnswered.keyUnchanged = false
  }

  /** Some tag was invalidated. Only the reply tells which tags the result has. */
  onTagInvalidated(): void {
    this.#lastSent.tagsUnchanged = false
    this.#lastAnswered.tagsUnchanged = false
  }

  /** Whether a result with these tags is not known to be invalidated since the last request that was answered was sent. */
  isUnchanged(tags: string): boolean {
    const { keyUnchanged, tagsUnchanged } = this.#lastAnswered
    return keyUnchanged && (tags === '' || tagsUnchanged)
  }

  /** The result was valid at some moment after the waiter `seq` joined. */
  validate(seq: number): void {
    this.#validatedSeq = Math.max(this.#validatedSeq, seq)
  }

  /** Whether the result was valid at some moment after the waiter `seq` joined. */
  isValidated(seq: number): boolean {
    return seq <= this.#validatedSeq
  }

  /** Drops a stale result that was accepted under `fence` or an earlier one. */
  dropStale(fence: number): void {
    if (this.stale && this.stale.fence <= fence) this.stale = undefined
  }

  /** Rejects the waiters that do not replace a processor. */
  rejectWithoutTakeover(message: string): void {
    for (const waiter of this) {
      const { key, locker } = waiter.call
      if (!locker.takeover) waiter.reject(new LockTimeoutError(message, { key }))
    }
  }

  /** The last progress of the work that is waited for, encoded. */
  get lastProgress(): Buffer | undefined {
    return this.#progress
  }

  showProgress(bytes: Buffer): void {
    this.#progress = ownedBytes(bytes)
    this.#isHeld = true
    for (const waiter of this.#waiters) notify(waiter, bytes)
  }

  /** Shows the last progress of the work that is waited for now, unless it was shown before. Undefined: there was none. */
  replayProgress(bytes: Buffer | undefined): void {
    if (!bytes) this.#progress = undefined
    else if (!this.#progress?.equals(bytes)) this.showProgress(bytes)
  }

  /** The store has no result: tells whether a process holds the lease. */
  showParked(isHeld: boolean): void {
    this.#isHeld = isHeld
    for (const waiter of this.#waiters) notifyParked(waiter, isHeld)
  }
}

function notify({ call }: Waiter, bytes: Buffer): void {
  const { onProgress, codec, context } = call
  if (onProgress) notifyProgress(codec, bytes, context, onProgress)
}

/** In a microtask of its own, as progress, so that it comes behind the progress of the same reply. */
function notifyParked({ call }: Waiter, isHeld: boolean): void {
  const { onParked, context } = call
  if (onParked) microtask(() => callHook(context, 'onParked', onParked, isHeld))
}

/** Makes an error of its own for each waiter out of the failure of a request, with its key. */
export function errorFor(error: unknown): (key: string) => unknown {
  return (key) => {
    const cause = error instanceof Error ? error.cause : undefined
    if (error instanceof UnavailableError) {
      const { message, lostConnections } = error
      return new UnavailableError(message, { key, cause, lostConnections })
    }
    if (error instanceof OverloadedError) return new OverloadedError(error.message, { key, cause })
    if (error instanceof ClosedError) return new ClosedError(error.message, { key, cause })
    return error
  }
}
