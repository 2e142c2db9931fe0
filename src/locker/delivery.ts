import { decodeWith } from '../kernel/codec.ts'
import type { Audience } from './audience.ts'
import type { Offer, Outcome } from './store.ts'
import { readNote } from './tags.ts'
import type { Call, Waiter } from './waiter.ts'

/**
 * Makes what callers are given out of what the store brought, and keeps it in this process's cache if it may be kept: no
 * invalidation came since the claim went out, and messages would have told.
 */
export class Delivery {
  readonly #call: Call
  readonly #audience: Audience
  /** Counts the tags that were heard to have begun a new epoch. */
  readonly #tagDrops: () => number
  #tagDropsThen = 0
  /** Since the claim went out, messages arrived and none of them invalidated the key. */
  #cacheable = false
  /** When the last claim went out, and after which waiter. */
  sentAt = 0
  sentSeq = 0

  constructor(call: Call, audience: Audience, tagDrops: () => number) {
    this.#call = call
    this.#audience = audience
    this.#tagDrops = tagDrops
  }

  /** A claim goes out, or a work begins without one. */
  sending(): void {
    const { clock, store } = this.#call.caller
    this.sentAt = clock.now()
    this.sentSeq = this.#audience.seq
    this.#cacheable = store.subscribed
    this.#tagDropsThen = this.#tagDrops()
  }

  /** Whether nothing is known to have been invalidated since. */
  get undisturbed(): boolean {
    return this.#cacheable
  }

  /** The key was invalidated, or may be without our hearing of it. */
  disturb(): void {
    this.#cacheable = false
  }

  /** Gives a result to waiters. `keptFrom`: its ttl counts from there. */
  give(waiters: readonly Waiter[], outcome: Outcome, keptFrom: number): void {
    try {
      // The server counts whole milliseconds, from the beginning of one.
      const freshUntil = keptFrom + outcome.fresh - 1
      const result = this.#read(outcome, freshUntil)
      if (outcome.fresh > 0) this.#cache(result, outcome, freshUntil, outcome.stale)
      for (const waiter of waiters) waiter.resolve(result)
    } catch (error) {
      for (const waiter of waiters) waiter.reject(error)
    }
  }

  #read(outcome: Outcome, until: number): unknown {
    const { codec, key, reveal } = this.#call
    const value = decodeWith(codec, outcome.bytes, key)
    return reveal ? reveal(value, outcome, until) : value
  }

  /** Offers something that is over to those who are content with it. What cannot be read is not offered. */
  offer({ bytes, fence, past, left, tags }: Offer): void {
    try {
      const since = this.sentAt - past
      const outcome: Outcome = { kind: 'value', fence, bytes, fresh: 0, doomed: false, stale: left, tags: '' }
      const result = this.#read(outcome, since)
      const offered = { result, fence, since, until: this.sentAt + left, tags: [...readNote(tags).keys()] }
      this.#audience.offer({ ...offered, seq: this.sentSeq })
    } catch {
      // The work will bring another.
    }
  }

  /** Another renews it: what is over is kept here as well, so that it is asked for once only. */
  cacheStale(offer: Offer): void {
    const { stale } = this.#audience
    if (stale) this.#cache(stale.result, offer, stale.since, stale.until - stale.since)
  }

  #cache(result: unknown, { bytes, fence, tags }: Outcome | Offer, freshUntil: number, stale: number): void {
    if (!this.#cacheable || (tags !== '' && this.#tagDropsThen !== this.#tagDrops())) return
    const { caller, name, record } = this.#call
    const times = { freshUntil, staleUntil: freshUntil + stale }
    const kept = { record, result, fence, tags: [...readNote(tags).keys()], ...times }
    caller.cache?.set(name, { ...kept, bytes: bytes.length })
  }
}
