import { type Codec, decodeWith, encodeWith } from '../kernel/codec/codec.ts'
import { checkKey } from '../kernel/redis/keys.ts'
import type { Clock } from '../kernel/time/clock.ts'
import {
  parseTagVersions,
  readTagVersions,
  serializeTagVersions,
  type TagVersions,
  tagsUnchanged,
  tagVersionRetention,
} from './cache/tag-versions.ts'
import { storeUnclaimed } from './flight/bypass.ts'
import { countUndecodable } from './flight/locker-context.ts'
import type { Done, Namespace, Work } from './flight/waiter.ts'
import type { Lease } from './lease.ts'
import { type AnyRunOptions, checkRunOptions, type RequestOptions } from './options.ts'
import { cacheName, type LockerRuntime } from './runtime.ts'
import type { Outcome } from './store/store.ts'

/** How long what is begun may take to be put, ms: after that it is taken for outdated. */
const PENDING_SET_RETENTION = 10 * 60_000

/** A value, and what its layer must know of it. */
export interface ResultEntry<T> {
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

/**
 * A layer's own resources in a locker: under names that no key of a user meets, by a codec of their own, and with what
 * the layer must know to decide for itself what is fresh.
 */
export class KeyNamespace<T> {
  readonly #runtime: LockerRuntime
  readonly #namespace: Namespace

  constructor(runtime: LockerRuntime, letter: string, codec: Codec) {
    this.#runtime = runtime
    this.#namespace = { letter, codec, mapResult: toResultEntry, asUnverified }
  }

  /** Monotonic, ms. */
  get clock(): Clock {
    return this.#runtime.clock
  }

  /** The locker's, ms. */
  get timeout(): number {
    return this.#runtime.options.timeout
  }

  /** What this process's cache holds. */
  cached(key: string): ResultEntry<T> | undefined {
    return this.#runtime.cachedFresh(this.#namespace, key, {})?.result as ResultEntry<T> | undefined
  }

  /** What is kept, and can be read, without claiming it. @throws UnavailableError, ClosedError */
  async lookup(key: string): Promise<ResultEntry<T> | undefined> {
    checkKey(key)
    const hit = this.cached(key)
    if (hit) return hit
    const runtime = this.#runtime
    runtime.checkOpen(key)
    const { store } = runtime.flights
    const sentAt = runtime.clock.now()
    const outcome = await store.readFresh(runtime.recordOf(this.#namespace, key), runtime.limits)
    if (!outcome) return undefined
    const note = parseTagVersions(outcome.tags)
    if (!tagsUnchanged(note, await readTagVersions(store, [...note.keys()], 0, runtime.limits)))
      return undefined
    try {
      const value = decodeWith(this.#namespace.codec, outcome.bytes, key)
      return toResultEntry(value, outcome, sentAt + outcome.ttlLeft) as ResultEntry<T>
    } catch {
      countUndecodable(runtime.context.counters, key, outcome.fence)
      return undefined
    }
  }

  /** What this process's cache holds, for when Redis is away. */
  lastKnown(key: string): ResultEntry<T> | undefined {
    const name = cacheName(this.#namespace, key)
    const entry = this.#runtime.cache?.lastKnown(name, this.clock.now())
    return entry && (asUnverified(entry.result) as ResultEntry<T>)
  }

  /** As `Locker.run`. */
  run(key: string, work: Work<T>, options: AnyRunOptions = {}): Promise<ResultEntry<T>> {
    return this.#runtime.run(this.#namespace, key, work, options) as Promise<ResultEntry<T>>
  }

  /** As `Locker.request`. */
  request(
    key: string,
    options: RequestOptions & { onProgress?: ((value: unknown) => void) | undefined } = {},
  ): Promise<Lease | Done<ResultEntry<T>>> {
    return this.#runtime.request(this.#namespace, key, options) as Promise<Lease | Done<ResultEntry<T>>>
  }

  /**
   * What a `put` of something that is begun after this needs to know: the epochs of a key, which need not be the one that
   * is put, and of tags. @throws as `lookup`
   */
  async readVersions(key: string, tags: readonly string[]): Promise<TagVersions> {
    checkKey(key)
    const runtime = this.#runtime
    runtime.checkOpen(key)
    const names = [this.#versionTag(key), ...tags].map((tag) => runtime.tagRecordOf(tag))
    return readTagVersions(runtime.flights.store, names, PENDING_SET_RETENTION, runtime.limits)
  }

  /** The tag of what was put by a note of the key. */
  #versionTag(key: string): string {
    return `\0${this.#namespace.letter}${key}`
  }

  /**
   * Keeps a value, unless somebody computes the key at the moment: whether it is kept. `since`, in place of tags: nor if
   * anything of that has been invalidated since. @throws as `lookup`
   */
  async setIfUnclaimed(
    key: string,
    value: T,
    { ttl, tags, since }: { ttl: number; tags?: readonly string[]; since?: TagVersions },
  ): Promise<boolean> {
    checkKey(key)
    checkRunOptions({ ttl, tags })
    const runtime = this.#runtime
    const call = runtime.createCall(this.#namespace, key, undefined, { ttl, tags })
    const bytes = encodeWith(this.#namespace.codec, value)
    const names = since ? [...since.keys()] : call.tags
    const epochs = await readTagVersions(
      runtime.flights.store,
      names,
      tagVersionRetention(call),
      runtime.limits,
    )
    if (since && !tagsUnchanged(since, epochs)) return false
    return storeUnclaimed(
      call,
      bytes,
      { ttl: Math.ceil(ttl), stale: 0, tags: serializeTagVersions(epochs) },
      0,
    )
  }

  /** As `invalidate`, and what was noted of the keys before is not kept either. In this process even if it throws. */
  async invalidateWithPending(...keys: string[]): Promise<void> {
    const runtime = this.#runtime
    try {
      const noted = keys.map((key) => runtime.invalidateTag(this.#versionTag(key)))
      await Promise.all([this.invalidate(...keys), ...noted])
    } finally {
      for (const key of keys)
        runtime.flights.drop(runtime.recordOf(this.#namespace, key), Number.MAX_SAFE_INTEGER)
    }
  }

  /** Forgets values everywhere. @throws as `lookup` */
  async invalidate(...keys: string[]): Promise<void> {
    for (const key of keys) checkKey(key)
    this.#runtime.checkOpen(keys[0])
    await Promise.all(
      keys.map((key) => this.#runtime.invalidate(this.#runtime.recordOf(this.#namespace, key))),
    )
  }
}

function asUnverified(result: unknown): ResultEntry<unknown> {
  return { ...(result as ResultEntry<unknown>), unverified: true }
}

function toResultEntry(
  value: unknown,
  { fence, invalidated, ttlLeft: fresh, staleLeft: stale }: Outcome,
  until: number,
): ResultEntry<unknown> {
  const over = fresh === 0 && stale > 0
  return { value, fence, until, invalidated, stale: over, unshared: fence === 0 }
}
