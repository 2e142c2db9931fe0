import { decodeWith, sizeOf } from '../../kernel/codec/codec.ts'
import { parseTagVersions } from '../cache/tag-versions.ts'
import type { Call } from '../call.ts'
import type { Outcome, StaleValue } from '../store/store.ts'
import type { Waiter } from './waiter.ts'
import type { WaiterSet } from './waiter-set.ts'

/** A value that was read: as callers are given it, and the bytes that it takes in memory. */
export interface Reading {
  result: unknown
  bytes: number
}

/**
 * Makes what callers are given out of what the store brought, and keeps it in this process's cache if it may be kept: no
 * invalidation came since the claim went out, and messages would have told.
 */
export class ResultDelivery {
  readonly #call: Call
  readonly #waiters: WaiterSet
  /** Counts the tags that were heard to have begun a new epoch. */
  readonly #tagDrops: () => number
  #tagDropsThen = 0
  /** Since the claim went out, messages arrived and none of them invalidated the key. */
  #cacheable = false
  /** When the last claim went out, and after which waiter. */
  sentAt = 0
  sentSeq = 0

  constructor(call: Call, waiters: WaiterSet, tagDrops: () => number) {
    this.#call = call
    this.#waiters = waiters
    this.#tagDrops = tagDrops
  }

  /** A claim goes out, or a work begins without one. */
  onClaimSent(): void {
    const { clock, store } = this.#call.locker
    this.sentAt = clock.now()
    this.sentSeq = this.#waiters.seq
    this.#cacheable = store.subscribed
    this.#tagDropsThen = this.#tagDrops()
  }

  /** Whether nothing is known to have been invalidated since. */
  get cacheable(): boolean {
    return this.#cacheable
  }

  /** The key was invalidated, or may be without our hearing of it. */
  onInvalidated(): void {
    this.#cacheable = false
  }

  /** Gives what was read of an outcome to waiters. `keptFrom`: its ttl counts from there. */
  deliver(waiters: readonly Waiter[], outcome: Outcome, reading: Reading, keptFrom: number): void {
    if (outcome.ttlLeft > 0) this.#cache(reading, outcome, freshUntil(outcome, keptFrom), outcome.staleLeft)
    for (const waiter of waiters) waiter.resolve(reading.result)
  }

  /** Reads the value of an outcome. Throws CodecError. */
  read(outcome: Outcome, keptFrom: number): Reading {
    const { codec, key, mapResult } = this.#call
    const value = decodeWith(codec, outcome.bytes, key)
    const result = mapResult ? mapResult(value, outcome, freshUntil(outcome, keptFrom)) : value
    return { result, bytes: sizeOf(codec, value, outcome.bytes.length) }
  }

  /** Offers something that is over to those who are content with it. What cannot be read is not offered. */
  setStale({ bytes, fence, staleFor: past, staleLeft: left, tags }: StaleValue): void {
    try {
      const since = this.sentAt - past
      const outcome: Outcome = {
        kind: 'value',
        fence,
        bytes,
        ttlLeft: 0,
        invalidated: false,
        staleLeft: left,
        tags: '',
      }
      const offered = {
        ...this.read(outcome, since),
        fence,
        staleSince: since,
        staleUntil: this.sentAt + left,
        tags: [...parseTagVersions(tags).keys()],
      }
      this.#waiters.setStale({ ...offered, seq: this.sentSeq })
    } catch {
      // The work will bring another.
    }
  }

  /** Another renews it: what is over is kept here as well, so that it is asked for once only. */
  cacheStale(offer: StaleValue): void {
    const { stale } = this.#waiters
    if (stale) this.#cache(stale, offer, stale.staleSince, stale.staleUntil - stale.staleSince)
  }

  #cache(reading: Reading, { fence, tags }: Outcome | StaleValue, freshUntil: number, stale: number): void {
    if (!this.#cacheable || (tags !== '' && this.#tagDropsThen !== this.#tagDrops())) return
    const { locker, name, record } = this.#call
    // Later results could not replace it, nor invalidations reach it.
    if (!locker.cache || !locker.store.isPlausibleFence(fence)) return
    const { result, bytes } = reading
    const names = [...parseTagVersions(tags).keys()]
    const staleUntil = freshUntil + stale
    locker.cache.set(name, { record, result, bytes, fence, freshUntil, staleUntil, tags: names })
  }
}

/** The server counts whole milliseconds, from the beginning of one. */
function freshUntil({ ttlLeft: fresh }: Outcome, keptFrom: number): number {
  return keptFrom + fresh - 1
}
