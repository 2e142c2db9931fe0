import type { Clock, Timer } from '../../kernel/time.ts'
import type { Holder } from '../store/store.ts'

/** What a presence needs to know, and whom it tells. */
export interface PresenceDeps {
  readonly clock: Clock
  /** The process that has the role of the peer. Rejects if the instance does not answer. */
  inspect(): Promise<Holder | undefined>
  onCome(): void
  onGo(): void
}

/** How often it looks while nobody is there, and after an instance did not answer, ms. */
const POLL_MS = 10_000
const RETRY_MS = 500

/** How long after the end of a lease it looks, ms. */
const MARGIN_MS = 20

/**
 * Knows whether a process has the role of the peer. Each holder of the role has a fence of its own, so one that comes after
 * another is noticed even if nobody looked in between.
 *
 * | found       | absent          | present, fence n                 |
 * | ----------- | --------------- | -------------------------------- |
 * | nobody      | absent          | absent: `onGo`                   |
 * | fence n     | present: `onCome` | present                        |
 * | fence m > n | present: `onCome` | present: `onGo`, then `onCome` |
 */
export class Presence {
  readonly #deps: PresenceDeps
  /** Of the peer that is there; 0: none is. */
  #fence = 0
  #timer: Timer | undefined
  #isLooking = false
  #looksAgain = false
  #isClosed = false
  /** Whether it is to be known who is there. */
  #isActive = false

  constructor(deps: PresenceDeps) {
    this.#deps = deps
  }

  /** Nobody is there, as far as is known: whoever is found has come. */
  reset(): void {
    this.#isActive = false
    this.#fence = 0
    this.#timer?.cancel()
  }

  /** The peer may have changed. */
  look(): void {
    if (this.#isClosed) return
    this.#isActive = true
    this.#looksAgain = true
    if (!this.#isLooking) void this.#look()
  }

  async #look(): Promise<void> {
    this.#isLooking = true
    let next = RETRY_MS
    while (this.#looksAgain && !this.#isClosed) {
      this.#looksAgain = false
      this.#timer?.cancel()
      try {
        const holder = await this.#deps.inspect()
        if (!this.#isClosed && this.#isActive) this.#set(holder?.fence ?? 0)
        next = holder ? Math.min(POLL_MS, Math.max(0, holder.leaseLeft) + MARGIN_MS) : POLL_MS
      } catch {
        next = RETRY_MS
      }
    }
    this.#isLooking = false
    if (!this.#isClosed && this.#isActive) this.#timer = this.#deps.clock.after(next, () => this.look(), true)
  }

  #set(fence: number): void {
    const before = this.#fence
    if (fence === before) return
    this.#fence = fence
    if (before !== 0) this.#deps.onGo()
    if (fence !== 0 && !this.#isClosed) this.#deps.onCome()
  }

  /** Tells nothing any more. */
  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
  }
}
