import { LRUCache } from 'lru-cache'
import type { Clock } from '../../kernel/time/clock.ts'
import { rootContext } from '../../kernel/work/user-code.ts'
import type { Done } from '../flight/waiter.ts'

/** Bounds of the in-process cache of results. */
export interface ResultCacheOptions {
  /**
   * Most results that are kept.
   * @default 10_000
   */
  max?: number | undefined
  /**
   * Most bytes that they take in memory, by estimate: that of `codec.size`, or 3 times the encoded bytes of objects, and
   * the bytes of texts and binary values as they are.
   * @default 67_108_864
   */
  maxSize?: number | undefined
}

/** A result that this process has received. */
export interface CachedResult {
  /** Name of the record. */
  readonly record: string
  /** As callers are given it. */
  readonly result: unknown
  /** Settled; handed to every caller as it is, so that a hit allocates nothing. */
  readonly promise: Promise<unknown>
  /** The same as `request` gives it; made when it is first asked for, see {@link doneOf}. */
  done: Promise<Done<unknown>> | undefined
  readonly fence: number
  /** By the clock: until when it is fresh, and until when it is kept for those who are content with what is over. */
  readonly freshUntil: number
  readonly staleUntil: number
  /** Names of the records of its tags. */
  readonly tags: readonly string[]
  /** Not renewed before that: the last attempt has failed. */
  renewAfter: number
}

/** A result as `request` gives it: one frozen object for all callers. */
export function doneOf(cached: CachedResult): Promise<Done<unknown>> {
  cached.done ??= rootContext.run(() =>
    Promise.resolve(Object.freeze({ status: 'done', result: cached.result })),
  )
  return cached.done
}

/** What is to be kept. `bytes`: that the result takes in memory. */
export type NewResult = Omit<CachedResult, 'promise' | 'done' | 'renewAfter'> & { bytes: number }

/** What an entry takes beside its result and names, about. */
const ENTRY_BYTES = 512

/** Results that this process has received lately. Filled by the flights (delivery.ts), emptied by what is invalidated (flights.ts). */
export class ResultCache {
  /** By what callers ask for. */
  readonly #entries: LRUCache<string, CachedResult>
  /** Names in the cache by record and by tag, since that is what invalidations name. */
  readonly #nameOfRecord = new Map<string, string>()
  readonly #namesOfTag = new Map<string, Set<string>>()
  /** Whether invalidations are heard. What is kept otherwise may be invalid: it is only for when Redis is away. */
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

  /** Bytes of all results in memory, by estimate. */
  get bytes(): number {
    return this.#entries.calculatedSize
  }

  /** What is kept, fresh or not. */
  get(name: string, now: number): CachedResult | undefined {
    return this.#hearsInvalidations ? this.lastKnown(name, now) : undefined
  }

  /** The same, though it may have been invalidated without our hearing of it. */
  lastKnown(name: string, now: number): CachedResult | undefined {
    const entry = this.#entries.get(name)
    if (!entry || entry.staleUntil > now) return entry
    this.#entries.delete(name)
    return undefined
  }

  /** Keeps a result, unless there is a newer one. */
  set(name: string, given: NewResult): void {
    const { record, result, fence, freshUntil, staleUntil, tags } = given
    const known = this.#entries.peek(name)
    if (!this.#hearsInvalidations) return
    if (staleUntil <= this.#clock.now() || (known && known.fence > fence)) return
    // A promise keeps the stores of the context that makes it alive.
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
      renewAfter: 0,
    }
    this.#entries.set(name, entry, { size: given.bytes + name.length + record.length + ENTRY_BYTES })
    if (!this.#entries.has(name)) return
    this.#nameOfRecord.set(given.record, name)
    for (const tag of given.tags) {
      const names = this.#namesOfTag.get(tag)
      if (names) names.add(name)
      else this.#namesOfTag.set(tag, new Set([name]))
    }
  }

  #unindex({ record, tags }: CachedResult, name: string): void {
    this.#nameOfRecord.delete(record)
    for (const tag of tags) {
      const names = this.#namesOfTag.get(tag)
      if (names?.delete(name) && names.size === 0) this.#namesOfTag.delete(tag)
    }
  }

  /** Forgets a result that was accepted under `fence` or an earlier one. */
  invalidate(record: string, fence: number): void {
    const name = this.#nameOfRecord.get(record)
    const known = name !== undefined && this.#entries.peek(name)
    if (known && known.fence <= fence) this.#entries.delete(name)
  }

  /** Forgets all results that have a tag. */
  invalidateTag(tag: string): void {
    for (const name of this.#namesOfTag.get(tag) ?? []) this.#entries.delete(name)
  }

  /** Invalidations may go unheard from now on. */
  onSubscriptionLost(): void {
    this.#hearsInvalidations = false
  }

  /** They are heard again. What was kept until then may have missed some. */
  onSubscribed(): void {
    if (!this.#hearsInvalidations) this.clear()
    this.#hearsInvalidations = true
  }

  clear(): void {
    this.#entries.clear()
  }
}
