import { type Codec, decodeWith, encodeWith } from '../kernel/codec/codec.ts'
import { checkKey } from '../kernel/keys.ts'
import { checkOptions } from '../kernel/options.ts'
import type { Clock } from '../kernel/time.ts'
import type { Done } from './cache/result-cache.ts'
import {
  parseTagVersions,
  readTagVersions,
  serializeTagVersions,
  type TagVersions,
  tagsUnchanged,
  tagVersionRetention,
} from './cache/tag-guard.ts'
import type { Namespace, Work } from './call.ts'
import type { Lease } from './lease.ts'
import { countUndecodable } from './locker-context.ts'
import { type AnyRunOptions, type RequestOptions, RUN_OPTIONS } from './options.ts'
import { cacheName, type LockerRuntime } from './runtime.ts'
import type { Outcome } from './store/store.ts'

/** The time from `readVersions` to `setIfUnclaimed`, ms, after which the value counts as invalidated. */
const PENDING_SET_RETENTION = 10 * 60_000

/** A result, with what a layer must know to decide for itself whether it is fresh. */
export interface ResultEntry<T> {
  /** The same object for all callers of this process: it must not be modified. */
  readonly value: T
  /** The grant that it was accepted under; 0 when unshared. */
  readonly fence: number
  /** Until when it is fresh, by the clock, counted from before it was asked for. */
  readonly until: number
  /** Invalidated while its work ran: only for callers that waited before the invalidation. */
  readonly invalidated: boolean
  /** Served although its ttl has passed. */
  readonly stale: boolean
  /** Computed for this process alone, because Redis was unavailable, or because of a bypass. */
  readonly unshared: boolean
  /** Served while Redis was unavailable: an invalidation of it may have been missed. */
  readonly unverified?: true
}

/**
 * The results of one layer in a locker. Their keys and cache names never collide with those of users or of other layers.
 * They have a codec of their own, and callers receive them as {@link ResultEntry}.
 */
export class KeyNamespace<T> {
  readonly #runtime: LockerRuntime
  readonly #namespace: Namespace

  constructor(runtime: LockerRuntime, letter: string, codec: Codec) {
    this.#runtime = runtime
    this.#namespace = { letter, codec, mapResult: toResultEntry, asUnverified }
  }

  /** The locker's clock, ms, monotonic. */
  get clock(): Clock {
    return this.#runtime.clock
  }

  /** The locker's `timeout`, ms. */
  get timeout(): number {
    return this.#runtime.options.timeout
  }

  /** How long the store may take to answer, ms. */
  get #within(): number {
    return this.#runtime.options.unavailableAfter
  }

  /** The fresh result in this process's cache. */
  cached(key: string): ResultEntry<T> | undefined {
    return this.#runtime.cachedFresh(this.#namespace, key, {})?.result as ResultEntry<T> | undefined
  }

  /** The fresh result in this process's cache or in the store, read without claiming. @throws UnavailableError, ClosedError */
  async lookup(key: string): Promise<ResultEntry<T> | undefined> {
    checkKey(key)
    const hit = this.cached(key)
    if (hit) return hit
    const runtime = this.#runtime
    runtime.checkOpen(key)
    const { store } = runtime.flights
    const sentAt = runtime.clock.now()
    const outcome = await store.readFresh(runtime.recordOf(this.#namespace, key), this.#within)
    if (!outcome) return undefined
    const stored = parseTagVersions(outcome.tags)
    if (!tagsUnchanged(stored, await readTagVersions(store, [...stored.keys()], 0, this.#within)))
      return undefined
    try {
      const value = decodeWith(this.#namespace.codec, outcome.bytes, key)
      return toResultEntry(value, outcome, sentAt + outcome.ttlLeft) as ResultEntry<T>
    } catch {
      countUndecodable(runtime.context.counters, key, outcome.fence)
      return undefined
    }
  }

  /** The result in this process's cache, for when Redis is unavailable: an invalidation of it may have been missed. */
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

  /** As `Locker.wait`, with the options of a `run` that make sense for it. */
  wait(key: string, options: AnyRunOptions = {}): Promise<ResultEntry<T>> {
    return this.#runtime.wait(this.#namespace, key, options, RUN_OPTIONS) as Promise<ResultEntry<T>>
  }

  /**
   * The present versions of a key and of tags, for a later `setIfUnclaimed` (of this key or another one): it refuses values
   * that were begun before an invalidation. @throws as `lookup`
   */
  async readVersions(key: string, tags: readonly string[]): Promise<TagVersions> {
    checkKey(key)
    const runtime = this.#runtime
    runtime.checkOpen(key)
    const names = [this.#versionTag(key), ...tags].map((tag) => runtime.tagRecordOf(tag))
    return readTagVersions(runtime.flights.store, names, PENDING_SET_RETENTION, this.#within)
  }

  /** The tag whose version `invalidateWithPending` changes. No user's tag begins with NUL. */
  #versionTag(key: string): string {
    return `\0${this.#namespace.letter}${key}`
  }

  /**
   * Stores a value, unless another process computes the key now. `since`, instead of `tags`: versions read when the value
   * was begun; if one has changed, the value is not stored. Returns whether it was stored. @throws as `lookup`
   */
  async setIfUnclaimed(
    key: string,
    value: T,
    { ttl, tags, since }: { ttl: number; tags?: readonly string[]; since?: TagVersions },
  ): Promise<boolean> {
    checkKey(key)
    checkOptions({ ttl, tags }, RUN_OPTIONS)
    const runtime = this.#runtime
    const call = runtime.createCall(this.#namespace, key, undefined, { ttl, tags })
    const bytes = encodeWith(this.#namespace.codec, value)
    const names = since ? [...since.keys()] : call.tags
    const versions = await readTagVersions(
      runtime.flights.store,
      names,
      tagVersionRetention(call),
      this.#within,
    )
    if (since && !tagsUnchanged(since, versions)) return false
    return call.storeUnclaimed(
      bytes,
      { ttl: Math.ceil(ttl), keepStale: 0, tags: serializeTagVersions(versions) },
      0,
    )
  }

  /**
   * As `invalidate`; values of the keys that are pending between `readVersions` and `setIfUnclaimed` will not be stored
   * either. This process's cache is invalidated even if it throws.
   */
  async invalidateWithPending(...keys: string[]): Promise<void> {
    const runtime = this.#runtime
    try {
      const changed = keys.map((key) => runtime.invalidateTag(this.#versionTag(key)))
      await Promise.all([this.invalidate(...keys), ...changed])
    } finally {
      for (const key of keys)
        runtime.flights.invalidate(runtime.recordOf(this.#namespace, key), Number.MAX_SAFE_INTEGER)
    }
  }

  /** Removes results in every process. @throws as `lookup` */
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
  { fence, invalidated, ttlLeft, staleLeft }: Outcome,
  until: number,
): ResultEntry<unknown> {
  const stale = ttlLeft === 0 && staleLeft > 0
  return { value, fence, until, invalidated, stale, unshared: fence === 0 }
}
