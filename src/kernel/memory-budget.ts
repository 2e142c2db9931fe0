import type { Clock } from './event-loop.ts'

/**
 * Bounds the bytes and entries of an in-memory store. Over the bound it evicts unused entries, the least recently changed
 * first. Entries in use are never evicted: the store must check {@link fits} before it admits new ones.
 */
export class MemoryBudget<Entry extends object> {
  readonly #maxBytes: number
  readonly #maxEntries: number
  readonly #sizes = new Map<Entry, number>()
  /** Unused entries with their evict callbacks, in the order of their last change. */
  readonly #idle = new Map<Entry, () => void>()
  #bytes = 0
  #idleBytes = 0

  constructor(maxBytes: number, maxEntries: number = Number.POSITIVE_INFINITY) {
    this.#maxBytes = maxBytes
    this.#maxEntries = maxEntries
  }

  /** Bytes of all entries. */
  get bytes(): number {
    return this.#bytes
  }

  /** Whether `bytes` more fit beside the entries in use. */
  fits(bytes: number): boolean {
    return this.#bytes - this.#idleBytes + bytes <= this.#maxBytes
  }

  /** Records an entry that is new or has changed. `evict` removes it from the store; undefined while it is in use. */
  set(entry: Entry, bytes: number, evict: (() => void) | undefined): void {
    this.delete(entry)
    // It would evict all others first, then itself.
    if (evict && bytes > this.#maxBytes) return evict()
    this.#sizes.set(entry, bytes)
    this.#bytes += bytes
    if (evict) {
      this.#idle.set(entry, evict)
      this.#idleBytes += bytes
    }
    this.#evict()
  }

  /** Forgets an entry that the store has removed. */
  delete(entry: Entry): void {
    const bytes = this.#sizes.get(entry) ?? 0
    this.#sizes.delete(entry)
    this.#bytes -= bytes
    if (this.#idle.delete(entry)) this.#idleBytes -= bytes
  }

  #evict(): void {
    for (const [entry, evict] of this.#idle) {
      if (this.#bytes <= this.#maxBytes && this.#sizes.size <= this.#maxEntries) return
      this.delete(entry)
      evict()
    }
  }
}

/** Default bound of an in-memory store, bytes. */
export const DEFAULT_MAX_BYTES: number = 256 * 1024 * 1024

const SWEEP_INTERVAL_MS = 1000

/**
 * Calls `sweep`, which removes expired entries, every second while it returns true: entries are left. The returned function
 * resumes that; call it when an entry is added.
 */
export function sweeper(clock: Clock, sweep: () => boolean): () => void {
  let pending = false
  const sweepLater = (): void => {
    if (pending) return
    pending = true
    clock.after(SWEEP_INTERVAL_MS, fired, true)
  }
  const fired = (): void => {
    pending = false
    if (sweep()) sweepLater()
  }
  return sweepLater
}
