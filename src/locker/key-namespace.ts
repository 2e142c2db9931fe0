import { type Codec, decodeWith, encodeWith } from '../kernel/codec/codec.ts'
import { checkKey } from '../kernel/redis/keys.ts'
import type { Clock } from '../kernel/time/clock.ts'
import { type Epochs, noted, readEpochs, readNote, stillHolds } from './cache/tag-versions.ts'
import { storeUnclaimed } from './flight/bypass.ts'
import { countUndecodable } from './flight/locker-context.ts'
import type { Done, Namespace, Work } from './flight/waiter.ts'
import type { Lease } from './lease.ts'
import { type AnyRunOptions, checkRunOptions, type RequestOptions } from './options.ts'
import { tagVersionRetention } from './processor/held-lease.ts'
import { type Core, nameOf } from './runtime.ts'
import type { Outcome } from './store/store.ts'

/** How long what is begun may take to be put, ms: after that it is taken for outdated. */
const NOTED_FOR = 10 * 60_000

/** A value, and what its layer must know of it. */
export interface Found<T> {
  /** Shared by all callers of this process: not to be changed. */
  readonly value: T
  /** The grant that it was accepted under; 0: none. */
  readonly fence: number
  /** By the clock: until when it is kept, counted from before it was asked for. */
  readonly until: number
  /** Invalidated while its work ran: only for those who waited for it. */
  readonly invalidated: boolean
  /** Over, and served all the same. */
  readonly stale: boolean
  /** Made for this process alone, because Redis was away or nobody waited for anybody. */
  readonly unshared: boolean
  /** Served because Redis was away, and an invalidation of it may not have been heard. */
  readonly unverified?: true
}

/** Options of `Space.run`, beyond those of `Locker.run`. */
export type SpaceRunOptions = AnyRunOptions

/**
 * A layer's own resources in a locker: under names that no key of a user meets, by a codec of their own, and with what
 * the layer must know to decide for itself what is fresh.
 */
export class Space<T> {
  readonly #core: Core
  readonly #namespace: Namespace

  constructor(core: Core, letter: string, codec: Codec) {
    this.#core = core
    this.#namespace = { letter, codec, mapResult: found, asUnverified }
  }

  /** Monotonic, ms. */
  get clock(): Clock {
    return this.#core.clock
  }

  /** The locker's, ms. */
  get timeout(): number {
    return this.#core.options.timeout
  }

  /** What this process's cache holds. */
  cached(key: string): Found<T> | undefined {
    return this.#core.hit(this.#namespace, key, {})?.result as Found<T> | undefined
  }

  /** What is kept, and can be read, without claiming it. @throws UnavailableError, ClosedError */
  async lookup(key: string): Promise<Found<T> | undefined> {
    checkKey(key)
    const hit = this.cached(key)
    if (hit) return hit
    const core = this.#core
    core.checkOpen(key)
    const { store } = core.flights
    const sentAt = core.clock.now()
    const outcome = await store.readFresh(core.record(this.#namespace, key), core.limits)
    if (!outcome) return undefined
    const note = readNote(outcome.tags)
    if (!stillHolds(note, await readEpochs(store, [...note.keys()], 0, core.limits))) return undefined
    try {
      const value = decodeWith(this.#namespace.codec, outcome.bytes, key)
      return found(value, outcome, sentAt + outcome.ttlLeft) as Found<T>
    } catch {
      countUndecodable(core.context.counters, key, outcome.fence)
      return undefined
    }
  }

  /** What this process's cache holds, for when Redis is away. */
  lastKnown(key: string): Found<T> | undefined {
    const name = nameOf(this.#namespace, key)
    const entry = this.#core.cache?.lastKnown(name, this.clock.now())
    return entry && (asUnverified(entry.result) as Found<T>)
  }

  /** As `Locker.run`. */
  run(key: string, work: Work<T>, options: SpaceRunOptions = {}): Promise<Found<T>> {
    return this.#core.run(this.#namespace, key, work, options) as Promise<Found<T>>
  }

  /** As `Locker.request`. */
  request(
    key: string,
    options: RequestOptions & { onProgress?: ((value: unknown) => void) | undefined } = {},
  ): Promise<Lease | Done<Found<T>>> {
    return this.#core.request(this.#namespace, key, options) as Promise<Lease | Done<Found<T>>>
  }

  /**
   * What a `put` of something that is begun after this needs to know: the epochs of a key, which need not be the one that
   * is put, and of tags. @throws as `lookup`
   */
  async note(key: string, tags: readonly string[]): Promise<Epochs> {
    checkKey(key)
    const core = this.#core
    core.checkOpen(key)
    const names = [this.#changesOf(key), ...tags].map((tag) => core.tag(tag))
    return readEpochs(core.flights.store, names, NOTED_FOR, core.limits)
  }

  /** The tag of what was put by a note of the key. */
  #changesOf(key: string): string {
    return `\0${this.#namespace.letter}${key}`
  }

  /**
   * Keeps a value, unless somebody computes the key at the moment: whether it is kept. `since`, in place of tags: nor if
   * anything of that has been invalidated since. @throws as `lookup`
   */
  async put(
    key: string,
    value: T,
    { ttl, tags, since }: { ttl: number; tags?: readonly string[]; since?: Epochs },
  ): Promise<boolean> {
    checkKey(key)
    checkRunOptions({ ttl, tags })
    const core = this.#core
    const call = core.call(this.#namespace, key, undefined, { ttl, tags })
    const bytes = encodeWith(this.#namespace.codec, value)
    const names = since ? [...since.keys()] : call.tags
    const epochs = await readEpochs(core.flights.store, names, tagVersionRetention(call), core.limits)
    if (since && !stillHolds(since, epochs)) return false
    return storeUnclaimed(call, bytes, { ttl: Math.ceil(ttl), stale: 0, tags: noted(epochs) }, 0)
  }

  /** As `invalidate`, and what was noted of the keys before is not kept either. In this process even if it throws. */
  async outdate(...keys: string[]): Promise<void> {
    const core = this.#core
    try {
      const noted = keys.map((key) => core.invalidateTag(this.#changesOf(key)))
      await Promise.all([this.invalidate(...keys), ...noted])
    } finally {
      for (const key of keys) core.flights.drop(core.record(this.#namespace, key), Number.MAX_SAFE_INTEGER)
    }
  }

  /** Forgets values everywhere. @throws as `lookup` */
  async invalidate(...keys: string[]): Promise<void> {
    for (const key of keys) checkKey(key)
    this.#core.checkOpen(keys[0])
    await Promise.all(keys.map((key) => this.#core.invalidate(this.#core.record(this.#namespace, key))))
  }
}

function asUnverified(result: unknown): Found<unknown> {
  return { ...(result as Found<unknown>), unverified: true }
}

function found(
  value: unknown,
  { fence, invalidated, ttlLeft: fresh, staleLeft: stale }: Outcome,
  until: number,
): Found<unknown> {
  const over = fresh === 0 && stale > 0
  return { value, fence, until, invalidated, stale: over, unshared: fence === 0 }
}
