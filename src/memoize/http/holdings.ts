import type { ResolvedHttpOptions } from './options.ts'
import type { KeptSpace } from './placement.ts'

/** What a record takes beside a body, about, bytes. */
const BESIDE_BODY = 1_024

/** What this process has had kept at one key. */
interface Held {
  primary: string
  bytes: number
  /** By the clock: until when it is kept. */
  until: number
}

/**
 * Counts what this process has had kept, and has the oldest forgotten when there is too much of it: clients make up URLs
 * and fields without end. What it is told by other processes, and what was kept before it began, it does not count.
 */
export class Holdings {
  readonly #space: KeptSpace
  readonly #maxVariants: number
  readonly #maxCount: number
  readonly #maxBytes: number
  /** By key, the oldest first. */
  readonly #held = new Map<string, Held>()
  #bytes = 0
  /** Variants of a page, by its primary key. */
  readonly #ofPage = new Map<string, number>()

  constructor(space: KeptSpace, { maxKept, maxKeptBytes, maxVariants }: ResolvedHttpOptions) {
    this.#space = space
    this.#maxCount = maxKept
    this.#maxBytes = maxKeptBytes
    this.#maxVariants = maxVariants
  }

  /** Whether one more variant of a page may be kept, at this key. */
  hasRoom(primary: string, key: string): boolean {
    return this.#held.has(key) || (this.#ofPage.get(primary) ?? 0) < this.#maxVariants
  }

  /** A response with a body of so many bytes, or an index, is going to be kept at a key. Whether there is room for it at all. */
  add(primary: string, key: string, { body, keep }: { body: number; keep: number }): boolean {
    const bytes = body + BESIDE_BODY
    this.#delete(key)
    if (bytes > this.#maxBytes) return false
    this.#held.set(key, { primary, bytes, until: this.#space.clock.now() + keep })
    this.#bytes += bytes
    if (key !== primary) this.#ofPage.set(primary, (this.#ofPage.get(primary) ?? 0) + 1)
    this.#forgetOldest()
    return true
  }

  #delete(key: string): void {
    const held = this.#held.get(key)
    if (!held) return
    const { primary, bytes } = held
    this.#held.delete(key)
    this.#bytes -= bytes
    if (key === primary) return
    const left = (this.#ofPage.get(primary) ?? 1) - 1
    if (left > 0) this.#ofPage.set(primary, left)
    else this.#ofPage.delete(primary)
  }

  #forgetOldest(): void {
    for (const [key, { until }] of this.#held) {
      if (this.#held.size <= this.#maxCount && this.#bytes <= this.#maxBytes) return
      this.#delete(key)
      // What cannot be forgotten now ends with its time.
      if (until > this.#space.clock.now()) this.#space.invalidate(key).catch(() => undefined)
    }
  }
}
