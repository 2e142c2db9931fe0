import { ClosedError, OverloadedError, UnavailableError } from '../../errors.ts'
import { ownedBytes } from '../../kernel/codec/binary.ts'
import { remoteError } from '../../kernel/codec/failure.ts'
import { notifyProgress } from '../../kernel/hooks.ts'
import { emit, hasListeners } from '../../kernel/telemetry.ts'
import type { Outcome } from '../store/store.ts'
import { requiresShared, serveLastKnown } from './unavailable.ts'
import type { Waiter, WaiterOwner } from './waiter.ts'

/** A result that is over, for those who are content with it. */
export interface StaleResult {
  readonly result: unknown
  /** That it takes in memory. */
  readonly bytes: number
  readonly fence: number
  /** By the clock: since when it has been over, and until when it may be served at all. */
  readonly staleSince: number
  readonly staleUntil: number
  /** Names of the records of its tags. */
  readonly tags: readonly string[]
  /** The last waiter who came before a moment at which it was not invalidated. */
  readonly seq: number
}

/** What an audience tells the flight that it waits in. */
export interface WaiterSetEvents {
  /** One waits no longer, whatever the reason. */
  onWaiterLeft(): void
  /** One would have what is over, but an invalidation might have come before it did. */
  revalidateFor(waiter: Waiter): void
}

/**
 * Those who wait in one flight, in the order of their arrival, and what each may be given.
 *
 * A strict waiter must not receive what an invalidation that was acknowledged before it came might have forbidden. It is
 * entitled to an outcome only if Redis is known to have had no invalidation at some moment after it came: then it is
 * vouched for. All others simply receive what comes.
 */
export class WaiterSet implements WaiterOwner {
  readonly key: string
  readonly #waiters = new Set<Waiter>()
  #seq = 0
  #validatedUpTo = 0
  /** What the work has said last. */
  #progress: Buffer | undefined

  readonly #events: WaiterSetEvents
  #stale: StaleResult | undefined

  constructor(key: string, events: WaiterSetEvents) {
    this.key = key
    this.#events = events
  }

  get size(): number {
    return this.#waiters.size
  }

  /** Number of the last waiter that has come. */
  get seq(): number {
    return this.#seq
  }

  /** The one who has waited longest. */
  get first(): Waiter | undefined {
    const [first] = this.#waiters
    return first
  }

  [Symbol.iterator](): IterableIterator<Waiter> {
    return [...this.#waiters][Symbol.iterator]()
  }

  /** Adds a waiter, which stays until it is settled. */
  add(waiter: Waiter): void {
    waiter.seq = ++this.#seq
    this.#waiters.add(waiter)
    waiter.joined(this)
    if (this.#progress) show(waiter, this.#progress)
  }

  /** Takes one out who goes on waiting elsewhere. */
  release(waiter: Waiter): void {
    this.#waiters.delete(waiter)
  }

  /** There is something that is over: for those who have waited long enough for better. */
  setStale(stale: StaleResult): void {
    this.#stale = stale
    for (const waiter of this) if (waiter.softTimedOut) this.onSoftTimeout(waiter)
  }

  /** What was offered. */
  get stale(): StaleResult | undefined {
    return this.#stale
  }

  /** What was offered is no longer to be served, if it was accepted under `fence` or an earlier one. */
  dropStale(fence: number): void {
    if (this.#stale && this.#stale.fence <= fence) this.#stale = undefined
  }

  onSoftTimeout(waiter: Waiter): void {
    const served = this.#serveStale(waiter, Number.POSITIVE_INFINITY)
    if (!served && this.#stale && waiter.strict) this.#events.revalidateFor(waiter)
  }

  /** While it is renewed, what is over goes to those who are content with it. Whether anybody was. */
  serveWhileRevalidating(): boolean {
    return this.#serveEach((waiter) => waiter.call.staleWhileRevalidate)
  }

  /** The work has failed: what is over goes to those who would rather have that. */
  serveInsteadOfError(): void {
    this.#serveEach(({ call }) => Math.max(call.staleIfError, call.staleWhileRevalidate))
  }

  /** Those who would be content with what is over, but came when it was not known any more whether they may. */
  unvalidatedWaiters(): Waiter[] {
    return [...this.#waiters].filter(
      (waiter) => waiter.strict && this.#joinedAfterValidation(waiter) && this.#acceptsStale(waiter),
    )
  }

  /** Whether it came after the last moment at which what is over is known not to have been invalidated. */
  #joinedAfterValidation({ seq }: Waiter): boolean {
    return seq > Math.max(this.#stale?.seq ?? 0, this.#validatedUpTo)
  }

  /** Whether what is over would do for a waiter while it is renewed. */
  #acceptsStale({ call }: Waiter): boolean {
    if (!this.#stale || call.refresh || this.#stale.fence <= call.afterFence) return false
    return call.locker.clock.now() - this.#stale.staleSince < call.staleWhileRevalidate
  }

  #serveEach(tolerance: (waiter: Waiter) => number): boolean {
    if (!this.#stale) return false
    return [...this.#waiters].filter((waiter) => this.#serveStale(waiter, tolerance(waiter))).length > 0
  }

  #serveStale(waiter: Waiter, tolerance: number): boolean {
    const stale = this.#stale
    const { key, locker, refresh } = waiter.call
    const now = locker.clock.now()
    if (!stale || refresh || now - stale.staleSince >= tolerance || now >= stale.staleUntil) return false
    if (stale.fence <= waiter.call.afterFence || (waiter.strict && this.#joinedAfterValidation(waiter)))
      return false
    locker.counters.stale++
    if (hasListeners('stale')) emit('stale', { key, staleFor: now - stale.staleSince })
    waiter.resolve(stale.result)
    return true
  }

  /** A waiter was settled. */
  remove(waiter: Waiter): void {
    this.#waiters.delete(waiter)
    this.#events.onWaiterLeft()
  }

  /** Waiters up to this one came before a moment at which there was no invalidation. */
  validate(seq: number): void {
    this.#validatedUpTo = Math.max(this.#validatedUpTo, seq)
  }

  /** Those who may be given an outcome that the store had when it was last heard of. */
  entitled(): Waiter[] {
    return [...this.#waiters].filter((waiter) => !waiter.strict || waiter.seq <= this.#validatedUpTo)
  }

  /** Rejects all, each with an error of its own. */
  reject(error: (key: string) => unknown): void {
    for (const waiter of this) waiter.reject(error(this.key))
  }

  /** Redis is away: gives what this process's cache has to those who accept that. */
  serveLastKnown(): void {
    for (const waiter of this) {
      const kept = serveLastKnown(waiter.call)
      if (kept) waiter.resolve(kept.result)
    }
  }

  /** Rejects those who would rather fail than have a result of this process alone. */
  rejectUnlessUnshared(error: unknown): void {
    for (const waiter of this) {
      if (!requiresShared(waiter.call)) continue
      const kept = serveLastKnown(waiter.call)
      if (kept) waiter.resolve(kept.result)
      else waiter.reject(errorFor(error)(this.key))
    }
  }

  /** Shows what the work has just said. */
  showProgress(bytes: Buffer): void {
    this.#progress = ownedBytes(bytes)
    for (const waiter of this.#waiters) show(waiter, bytes)
  }

  /** Shows what was said last of what is waited for now, unless that is known already. Undefined: nothing was. */
  replayProgress(bytes: Buffer | undefined): void {
    if (!bytes) this.#progress = undefined
    else if (!this.#progress?.equals(bytes)) this.showProgress(bytes)
  }
}

/** Gives waiters a failure. `original`: the thrown value, where the work ran in this process. */
export function rejectWithFailure(
  waiters: readonly Waiter[],
  outcome: Outcome,
  key: string,
  original: unknown,
): void {
  for (const waiter of waiters) waiter.reject(remoteError(outcome.bytes, key, original))
}

function show({ call }: Waiter, bytes: Buffer): void {
  const { onProgress, codec, context } = call
  if (onProgress) notifyProgress(codec, bytes, context, onProgress)
}

/** Makes the same failure for each waiter, with its key. */
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
