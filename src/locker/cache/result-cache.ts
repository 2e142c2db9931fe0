import { LRUCache } from 'lru-cache'
import { TransientSetMap } from '../../kernel/collections.ts'
import { type Clock, rootContext } from '../../kernel/time.ts'

/** Bounds of the in-process cache of results. */
export interface ResultCacheOptions {
  /**
   * Most results that are kept.
   * @default 10_000
   */
  max?: number | undefined
  /**
   * Most bytes that the results take in memory, estimated by `codec.size`; without it, as 3 times the encoded bytes of an
   * object, and as the bytes of a text or a binary value.
   * @default 67_108_864
   */
  maxSize?: number | undefined
}

/** A result that this process has received. Times are of the process's clock. */
export interface CachedResult {
  /** Name of the record. */
  readonly record: string
  /** As callers receive it. */
  readonly result: unknown
  /** Resolved with the result. Every caller receives this promise, so that a hit allocates nothing. */
  readonly promise: Promise<unknown>
  /** The same for callers of `request`. Written by {@link doneOf}, when it is first used. */
  done: Promise<Done<unknown>> | undefined
  readonly fence: number
  readonly freshUntil: number
  /** Until when it is kept for callers that accept stale. */
  readonly staleUntil: number
  /** Names of the records of its tags. */
  readonly tags: readonly string[]
  /** Not revalidated in the background before this. Written by the runtime when a revalidation has failed. */
  revalidateAfter: number
}

/** The reply to `request` when there is a result. */
export interface Done<T> {
  status: 'done'
  result: T
}

/** A result as callers of `request` receive it: one frozen object for all. */
export function doneOf(cached: CachedResult): Promise<Done<unknown>> {
  cached.done ??= rootContext.run(() =>
    Promise.resolve(Object.freeze({ status: 'done', result: cached.result })),
  )
  return cached.done
}

/** A result to cache. `bytes`: what it takes in memory. */
export type NewResult = Omit<CachedResult, 'promise' | 'done' | 'revalidateAfter'> & { bytes: number }

/** What an entry takes beside its result and its names, by estimate. */
const ENTRY_BYTES = 512

/**
 * The results that this process has received lately (LRU). Written by `Call.cacheOutcome`; entries leave when their record
 * or one of their tags is invalidated.
 */
export class ResultCache {
  /** By cache name (`cacheName` in runtime.ts). */
  readonly #entries: LRUCache<string, CachedResult>
  /** Indexes of `#entries` for invalidations, which name a record or a tag. */
  readonly #nameOfRecord = new Map<string, string>()
  readonly #namesOfTag = new TransientSetMap<string, string>()
  /** False while the subscription is lost. Entries may then be invalid, and serve only while Redis is unavailable. */
  #hearsInvalidations = true
  readonly #clock: Clock

  constructor(options: { max: number; maxSize: number }, clock: Clock) {
    this.#clock = clock
    this.#entries = new LRUCache({
      max: options.max,
      maxSize: options.maxSize,
      maxEntrySize: options.maxSize,
      dispose: (entry, name) => this.#unindex(entry, name),
    })
  }

  get size(): number {
    return this.#entries.size
  }

  /** Bytes of all results, by estimate. */
  get bytes(): number {
    return this.#entries.calculatedSize
  }

  /** The entry, fresh or stale. Undefined while invalidations are not heard. */
  get(name: string, now: number): CachedResult | undefined {
    return this.#hearsInvalidations ? this.lastKnown(name, now) : undefined
  }

  /** The same, although it may have been invalidated while invalidations were not heard. */
  lastKnown(name: string, now: number): CachedResult | undefined {
    const entry = this.#entries.get(name)
    if (!entry || entry.staleUntil > now) return entry
    this.#entries.delete(name)
    return undefined
  }

  /** Caches a result, unless a newer one is cached. */
  set(name: string, given: NewResult): void {
    const { record, result, fence, freshUntil, staleUntil, tags } = given
    const known = this.#entries.peek(name)
    if (!this.#hearsInvalidations) return
    if (staleUntil <= this.#clock.now() || (known && known.fence > fence)) return
    // Created in the root context: a promise retains the AsyncLocalStorage stores of the context that creates it.
    const promise = rootContext.run(() => Promise.resolve(result))
    const entry: CachedResult = {
      record,
      result,
      promise,
      done: undefined,
      fence,
      freshUntil,
      staleUntil,
      tags,
      revalidateAfter: 0,
    }
    this.#entries.set(name, entry, { size: given.bytes + name.length + record.length + ENTRY_BYTES })
    if (!this.#entries.has(name)) return
    this.#nameOfRecord.set(record, name)
    for (const tag of tags) this.#namesOfTag.add(tag, name)
  }

  #unindex({ record, tags }: CachedResult, name: string): void {
    this.#nameOfRecord.delete(record)
    for (const tag of tags) this.#namesOfTag.delete(tag, name)
  }

  /** Removes the result of a record, if it was accepted under `fence` or an earlier one. */
  invalidate(record: string, fence: number): void {
    const name = this.#nameOfRecord.get(record)
    const known = name !== undefined && this.#entries.peek(name)
    if (known && known.fence <= fence) this.#entries.delete(name)
  }

  /** Removes all results with a tag. */
  invalidateTag(tag: string): void {
    for (const name of this.#namesOfTag.of(tag)) this.#entries.delete(name)
  }

  /** Invalidations may be missed from now on. */
  onSubscriptionLost(): void {
    this.#hearsInvalidations = false
  }

  /** Invalidations are heard again. The entries may have missed some, so they are removed. */
  onSubscribed(): void {
    if (!this.#hearsInvalidations) this.clear()
    this.#hearsInvalidations = true
  }

  clear(): void {
    this.#entries.clear()
  }
}
