import type { ResolvedHttpOptions } from '../options.ts'
import type { EntryNamespace } from './placement.ts'

/** Bytes that a record takes beside its body, by estimate. */
const RECORD_OVERHEAD = 1_024

/** An entry that this process has stored. */
interface KeptRecord {
  /** The id of the Vary index that leads to it; undefined for a primary key. */
  index: string | undefined
  bytes: number
  /** When it expires, by the clock. */
  until: number
}

/**
 * Bounds the entries that this process has stored: clients can make up URLs and fields without end. The oldest are
 * invalidated. Entries of other processes, and those from before this process began, do not count.
 */
export class KeptResponses {
  readonly #namespace: EntryNamespace
  readonly #maxVariants: number
  readonly #maxCount: number
  readonly #maxBytes: number
  /** By key, the oldest first. */
  readonly #kept = new Map<string, KeptRecord>()
  #bytes = 0
  /** Keys of variants by the id of their index. A replaced index is out of reach: its variants do not count any more. */
  readonly #variants = new Map<string, Set<string>>()

  constructor(namespace: EntryNamespace, { maxKept, maxKeptBytes, maxVariants }: ResolvedHttpOptions) {
    this.#namespace = namespace
    this.#maxCount = maxKept
    this.#maxBytes = maxKeptBytes
    this.#maxVariants = maxVariants
  }

  /**
   * Counts an entry that is about to be stored for `keep` ms with `body` bytes, and evicts the oldest to make room.
   * `index`: the id of the Vary index that leads to it. Returns false when it is too large, or is one variant too many.
   */
  tryAdd(key: string, { index, body, keep }: { index?: string; body: number; keep: number }): boolean {
    const bytes = body + RECORD_OVERHEAD
    this.#delete(key)
    if (bytes > this.#maxBytes || !this.#hasRoomForVariant(index)) return false
    this.#kept.set(key, { index, bytes, until: this.#namespace.clock.now() + keep })
    this.#bytes += bytes
    if (index !== undefined) this.#variants.set(index, (this.#variants.get(index) ?? new Set()).add(key))
    this.#evictOldest()
    return true
  }

  /** Whether an index may lead to one more variant. Expired variants do not count. */
  #hasRoomForVariant(index: string | undefined): boolean {
    const keys = index === undefined ? undefined : this.#variants.get(index)
    if (!keys || keys.size < this.#maxVariants) return true
    const now = this.#namespace.clock.now()
    for (const key of keys) if ((this.#kept.get(key)?.until ?? 0) <= now) this.#delete(key)
    return keys.size < this.#maxVariants
  }

  #delete(key: string): void {
    const record = this.#kept.get(key)
    if (!record) return
    const { index, bytes } = record
    this.#kept.delete(key)
    this.#bytes -= bytes
    if (index === undefined) return
    const keys = this.#variants.get(index)
    if (keys?.delete(key) && keys.size === 0) this.#variants.delete(index)
  }

  #evictOldest(): void {
    for (const [key, { until }] of this.#kept) {
      if (this.#kept.size <= this.#maxCount && this.#bytes <= this.#maxBytes) return
      this.#delete(key)
      // Where Redis is away, the entry lasts until it expires.
      if (until > this.#namespace.clock.now()) this.#namespace.invalidate(key).catch(() => undefined)
    }
  }
}
