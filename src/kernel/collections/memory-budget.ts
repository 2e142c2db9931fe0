/**
 * Counts the bytes of what a store in memory holds, and makes the store forget what nobody uses when there is too much
 * of it: the entry that was changed longest ago first. What is in use is never forgotten: the store must ask {@link fits}
 * before it lets anything new begin.
 */
export class MemoryBudget<Entry extends object> {
  readonly #maxBytes: number
  readonly #maxEntries: number
  readonly #sizes = new Map<Entry, number>()
  /** Entries that nobody uses, and how the store forgets each. In the order of their last change. */
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

  /** Whether so many bytes fit beside what is in use. */
  fits(bytes: number): boolean {
    return this.#bytes - this.#idleBytes + bytes <= this.#maxBytes
  }

  /** An entry is new, or has changed. `forget` removes it from the store; undefined while it is in use. */
  set(entry: Entry, bytes: number, forget: (() => void) | undefined): void {
    this.delete(entry)
    // It would push everything else out, and itself at last.
    if (forget && bytes > this.#maxBytes) return forget()
    this.#sizes.set(entry, bytes)
    this.#bytes += bytes
    if (forget) {
      this.#idle.set(entry, forget)
      this.#idleBytes += bytes
    }
    this.#evict()
  }

  /** The store has forgotten an entry. */
  delete(entry: Entry): void {
    const bytes = this.#sizes.get(entry) ?? 0
    this.#sizes.delete(entry)
    this.#bytes -= bytes
    if (this.#idle.delete(entry)) this.#idleBytes -= bytes
  }

  #evict(): void {
    for (const [entry, forget] of this.#idle) {
      if (this.#bytes <= this.#maxBytes && this.#sizes.size <= this.#maxEntries) return
      this.delete(entry)
      forget()
    }
  }
}

/** Bytes that a store in memory holds at most, unless told otherwise. */
export const DEFAULT_MAX_BYTES: number = 256 * 1024 * 1024
