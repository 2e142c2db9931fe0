import { LRUCache } from 'lru-cache'
import type { Clock } from '../kernel/clock.ts'
import type { Outcome } from './store.ts'

/** Bounds of the in-process cache of results. */
export interface ResultCacheOptions {
  /**
   * Most results that are kept.
   * @default 10_000
   */
  max?: number | undefined
  /**
   * Most bytes, counted encoded.
   * @default 67_108_864
   */
  maxSize?: number | undefined
}

interface Entry {
  /** Name of the record. */
  record: string
  /** Settled; handed to every caller as it is, so that a hit allocates nothing. */
  promise: Promise<unknown>
  fence: number
}

/** Results that this process has received lately. Filled and emptied by the flights, see flight.ts. */
export class ResultCache {
  /** By key, since that is what callers ask for. */
  readonly #entries: LRUCache<string, Entry>
  /** Keys by record, since that is what invalidations name. */
  readonly #keys = new Map<string, string>()
  readonly #clock: Clock

  constructor(options: { max: number; maxSize: number }, clock: Clock) {
    this.#clock = clock
    this.#entries = new LRUCache({
      max: options.max,
      maxSize: options.maxSize,
      maxEntrySize: options.maxSize,
      ttl: 1,
      ttlResolution: 1,
      perf: clock,
      dispose: ({ record }) => this.#keys.delete(record),
      noDisposeOnSet: true,
    })
  }

  get size(): number {
    return this.#entries.size
  }

  /** Bytes of all results, counted encoded. */
  get bytes(): number {
    return this.#entries.calculatedSize
  }

  /** A promise of the result, if there is one. */
  get(key: string): Promise<unknown> | undefined {
    return this.#entries.get(key)?.promise
  }

  /** Keeps the result of a resource until `until` (of the clock), unless there is a newer one. */
  set(resource: { key: string; record: string }, value: unknown, outcome: Outcome, until: number): void {
    const { key, record } = resource
    const ttl = until - this.#clock.now()
    const known = this.#entries.peek(key)
    if (ttl <= 0 || (known && known.fence > outcome.fence)) return
    const entry = { record, promise: Promise.resolve(value), fence: outcome.fence }
    this.#entries.set(key, entry, { ttl, size: outcome.bytes.length + key.length + record.length })
    if (this.#entries.has(key)) this.#keys.set(record, key)
  }

  /** Forgets a result that was accepted under `fence` or an earlier one. */
  drop(record: string, fence: number): void {
    const key = this.#keys.get(record)
    const known = key !== undefined && this.#entries.peek(key, { allowStale: true })
    if (known && known.fence <= fence) this.#entries.delete(key)
  }

  clear(): void {
    this.#entries.clear()
  }
}
