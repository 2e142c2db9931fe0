import type { ResolvedHttpOptions } from '../options.ts'
import type { KeptSpace } from './placement.ts'

/** What a record takes beside a body, about, bytes. */
const BESIDE_BODY = 1_024

/** What this process has had kept at one key. */
interface Held {
  /** Of the index that leads to it; undefined when none does. */
  index: string | undefined
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
  /** Keys of variants by the id of their index: those of one that was replaced are out of reach, and count no more. */
  readonly #variants = new Map<string, Set<string>>()

  constructor(space: KeptSpace, { maxKept, maxKeptBytes, maxVariants }: ResolvedHttpOptions) {
    this.#space = space
    this.#maxCount = maxKept
    this.#maxBytes = maxKeptBytes
    this.#maxVariants = maxVariants
  }

  /**
   * Notes that a response with a body of so many bytes, or an index, is going to be kept at a key, and has the oldest
   * forgotten for it. `index`: the id of the one that leads to it. False: it is too large, or one variant too many.
   */
  tryAdd(key: string, { index, body, keep }: { index?: string; body: number; keep: number }): boolean {
    const bytes = body + BESIDE_BODY
    this.#delete(key)
    if (bytes > this.#maxBytes || !this.#hasRoom(index)) return false
    this.#held.set(key, { index, bytes, until: this.#space.clock.now() + keep })
    this.#bytes += bytes
    if (index !== undefined) this.#variants.set(index, (this.#variants.get(index) ?? new Set()).add(key))
    this.#forgetOldest()
    return true
  }

  /** Whether an index may lead to one more variant, once those that are over are not counted. */
  #hasRoom(index: string | undefined): boolean {
    const keys = index === undefined ? undefined : this.#variants.get(index)
    if (!keys || keys.size < this.#maxVariants) return true
    const now = this.#space.clock.now()
    for (const key of keys) if ((this.#held.get(key)?.until ?? 0) <= now) this.#delete(key)
    return keys.size < this.#maxVariants
  }

  #delete(key: string): void {
    const held = this.#held.get(key)
    if (!held) return
    const { index, bytes } = held
    this.#held.delete(key)
    this.#bytes -= bytes
    if (index === undefined) return
    const keys = this.#variants.get(index)
    if (keys?.delete(key) && keys.size === 0) this.#variants.delete(index)
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
