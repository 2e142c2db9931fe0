/**
 * Where responses are stored. The primary key of a resource leads to its response, or to a Vary index:
 *
 *   primary key -> StoredResponse
 *   primary key -> VaryIndex { names, id } -> variant key (primary key, id, values of the named fields) -> StoredResponse
 *
 * A response whose Vary names further fields gets a new index with a new id. The variants of the former index are then out
 * of reach, and expire.
 */

import { randomBytes } from 'node:crypto'
import { UnavailableError } from '../../errors.ts'
import type { Clock } from '../../kernel/time.ts'
import type { WorkContext } from '../../locker/index.ts'
import type { KeyNamespace, ResultEntry, TagVersions } from '../../locker/internal.ts'
import {
  type RequestDirectives,
  reflectsOrigin,
  tagsOf,
  type VaryIndex,
  variantKey,
  varyNames,
} from '../policy/request.ts'
import { MAX_KEEP_MS } from '../policy/response.ts'
import type { HttpRequest, Origin } from './message.ts'
import type { ResolvedHttpOptions } from './options.ts'
import { RecordingBudget } from './recording.ts'
import { type CacheEntry, StoredResponse } from './stored-response.ts'

/** How long a Vary index is kept at least, ms. */
const MIN_INDEX_TTL = 60_000

/** A request that the cache looks up. */
export interface CacheLookup {
  request: HttpRequest
  origin: Origin
  directives: RequestDirectives
  /** The cache key of the target, whatever its responses vary by. RFC 9111 §2. */
  primaryKey: string
  /** By the clock of the namespace. */
  arrivedAt: number
}

/** The entry that a lookup has led to so far. */
export interface EntryRef {
  primaryKey: string
  /** The key of the response: the primary key, or that of a variant. */
  key: string
  /** The Vary index that led to the variant. */
  index: VaryIndex | undefined
  /** The response that is stored there and may not answer the request without validation. */
  stale: ResultEntry<StoredResponse> | undefined
}

/** The entry of the primary key, where a lookup begins. */
export function primaryEntry({ primaryKey }: CacheLookup): EntryRef {
  return { primaryKey, key: primaryKey, index: undefined, stale: undefined }
}

/** The entry of the variant that a request selects. RFC 9111 §4.1. Undefined unless a Vary index was found. */
export function variantEntry(
  { primaryKey, request }: CacheLookup,
  found: ResultEntry<CacheEntry> | undefined,
): EntryRef | undefined {
  if (found?.value.kind !== 'index') return undefined
  const { index } = found.value
  return { primaryKey, key: variantKey(primaryKey, index, request.headers), index, stale: undefined }
}

/** The part of WorkContext that a fetch uses to decide how long its result is kept. */
export type ResultContext = Pick<WorkContext, 'signal' | 'setTtl' | 'noStore'>

/** Where an accepted response is stored: under the key of its entry, or under that of a variant of a new Vary index. */
export interface Placement {
  readonly response: StoredResponse
  /** Set when the Vary of the response names fields that the entry's key does not cover. */
  readonly newIndex: VaryIndex | undefined
}

/** The entries of a cache: where they are found, where responses are stored, and the bounds of what is kept. */
export class ResponseStorage {
  readonly namespace: KeyNamespace<CacheEntry>
  readonly options: ResolvedHttpOptions
  readonly clock: Clock
  readonly recordingBudget: RecordingBudget
  /** Primary keys whose invalidation Redis does not know yet, with its number, the oldest first. Written by Invalidations. */
  readonly unsentInvalidations: Map<string, number> = new Map()
  readonly #kept: KeptResponses

  constructor(namespace: KeyNamespace<CacheEntry>, options: ResolvedHttpOptions) {
    this.namespace = namespace
    this.options = options
    this.clock = namespace.clock
    this.recordingBudget = new RecordingBudget(options.maxRecorded)
    this.#kept = new KeptResponses(namespace, options)
  }

  /** How long requests wait, and origins may take to begin a response, ms. */
  get timeout(): number {
    return this.options.timeout ?? this.namespace.timeout
  }

  /** What is left of `timeout` for a request, ms. */
  timeLeft(arrivedAt: number): number {
    return Math.max(1, this.timeout - (this.clock.now() - arrivedAt))
  }

  /** Whether the resource has changed and Redis does not know yet: what is stored must not be served. */
  isInvalidated(primaryKey: string): boolean {
    return this.unsentInvalidations.size > 0 && this.unsentInvalidations.has(primaryKey)
  }

  /** Reads an entry. While Redis is unavailable: what this process knew last, if `onUnavailable` allows it. */
  async find({ key, primaryKey }: EntryRef): Promise<ResultEntry<CacheEntry> | undefined> {
    if (this.isInvalidated(primaryKey)) return undefined
    const { onUnavailable } = this.options
    const servesLastKnown = onUnavailable === 'cached' || onUnavailable === 'cached-local'
    return this.namespace
      .lookup(key)
      .catch((error) =>
        servesLastKnown && error instanceof UnavailableError ? this.namespace.lastKnown(key) : undefined,
      )
  }

  /**
   * The versions of the tags that an invalidation of the resource increments. Undefined when they cannot be read: a stored
   * response may still answer the request, but a fetched one is not stored.
   */
  async readVersions({ request, primaryKey }: CacheLookup): Promise<TagVersions | undefined> {
    try {
      return await this.namespace.readVersions(primaryKey, tagsOf(request, this.options))
    } catch {
      return undefined
    }
  }

  /** Decides where a response is stored. One without room is not stored: only the requests that wait for it receive it. */
  place(response: StoredResponse, request: HttpRequest, { index, key }: EntryRef): Placement {
    const { headers, plan, body } = response
    const { vary } = this.options
    const names = varyNames(headers, reflectsOrigin(request.headers, headers) ? [...vary, 'origin'] : vary)
    const indexed = new Set(index?.names)
    if (!names.every((name) => indexed.has(name))) return { response, newIndex: mergeVary(index, names) }
    const size = { body: body.length, keep: plan.keep, ...(index && { index: index.id }) }
    const hasRoom = plan.keep === 0 || this.#kept.tryAdd(key, size)
    if (hasRoom) return { response, newIndex: undefined }
    return { response: new StoredResponse({ ...response, plan: { ...plan, keep: 0 } }), newIndex: undefined }
  }

  /**
   * Stores a response. Returns the result of the work for the key of the entry, which the locker stores for the ttl that is
   * set here: the response itself, or the new Vary index, which leads other requests to the key of their variant.
   */
  async store(
    { response, newIndex }: Placement,
    request: HttpRequest,
    { index, primaryKey }: EntryRef,
    context: ResultContext,
  ): Promise<CacheEntry> {
    const { keep } = response.plan
    if (!newIndex) {
      // A ttl of 0 removes the response that was stored before. A server error leaves it.
      if (keep > 0 || response.status < 500) context.setTtl(keep)
      else context.noStore({ bypassFor: 0 })
      return response
    }
    const result: CacheEntry = { kind: 'index', index: newIndex }
    const tags = tagsOf(request, this.options)
    const put = (key: string, entry: CacheEntry, ttl: number): Promise<unknown> =>
      // An entry that cannot be stored, because Redis is unavailable, is fetched again.
      this.namespace.setIfUnclaimed(key, entry, { ttl, tags }).catch(() => false)
    const ttl = Math.min(Math.max(keep, MIN_INDEX_TTL), MAX_KEEP_MS)
    this.#kept.tryAdd(primaryKey, { body: 0, keep: ttl })
    if (index) {
      // Only the index is stored: the claim is of a variant, so an invalidation of the primary key since would be missed.
      await put(primaryKey, result, ttl)
      context.noStore({ bypassFor: 0 })
      return result
    }
    // If the primary key was invalidated meanwhile, its index is not accepted, and this variant cannot be reached.
    const variant = variantKey(primaryKey, newIndex, request.headers)
    if (keep > 0 && this.#kept.tryAdd(variant, { body: response.body.length, keep, index: newIndex.id }))
      await put(variant, response, keep)
    context.setTtl(ttl)
    return result
  }
}

/** An index of the names of `known` and these. */
function mergeVary(known: VaryIndex | undefined, names: readonly string[]): VaryIndex {
  return {
    names: [...new Set([...names, ...(known?.names ?? [])])].sort(),
    id: randomBytes(12).toString('base64url'),
  }
}

/** Bytes that a record takes beside its body, by estimate. */
const RECORD_OVERHEAD = 1_024

/** An entry that this process has stored. */
interface KeptRecord {
  /** The id of the Vary index that leads to it; undefined for a primary key. */
  index: string | undefined
  bytes: number
  /** When it expires, by the clock. */
  until: number
}

/**
 * Bounds the entries that this process has stored: clients can make up URLs and fields without end. The oldest are
 * invalidated. Entries of other processes, and those from before this process began, do not count.
 */
class KeptResponses {
  readonly #namespace: KeyNamespace<CacheEntry>
  readonly #maxVariants: number
  readonly #maxCount: number
  readonly #maxBytes: number
  /** By key, the oldest first. */
  readonly #kept = new Map<string, KeptRecord>()
  #bytes = 0
  /** Keys of variants by the id of their index. A replaced index is out of reach: its variants do not count any more. */
  readonly #variants = new Map<string, Set<string>>()

  constructor(
    namespace: KeyNamespace<CacheEntry>,
    { maxKept, maxKeptBytes, maxVariants }: ResolvedHttpOptions,
  ) {
    this.#namespace = namespace
    this.#maxCount = maxKept
    this.#maxBytes = maxKeptBytes
    this.#maxVariants = maxVariants
  }

  /**
   * Counts an entry that is about to be stored for `keep` ms with `body` bytes, and evicts the oldest to make room.
   * `index`: the id of the Vary index that leads to it. Returns false when it is too large, or is one variant too many.
   */
  tryAdd(key: string, { index, body, keep }: { index?: string; body: number; keep: number }): boolean {
    const bytes = body + RECORD_OVERHEAD
    this.#delete(key)
    if (bytes > this.#maxBytes || !this.#hasRoomForVariant(index)) return false
    this.#kept.set(key, { index, bytes, until: this.#namespace.clock.now() + keep })
    this.#bytes += bytes
    if (index !== undefined) this.#variants.set(index, (this.#variants.get(index) ?? new Set()).add(key))
    this.#evictOldest()
    return true
  }

  /** Whether an index may lead to one more variant. Expired variants do not count. */
  #hasRoomForVariant(index: string | undefined): boolean {
    const keys = index === undefined ? undefined : this.#variants.get(index)
    if (!keys || keys.size < this.#maxVariants) return true
    const now = this.#namespace.clock.now()
    for (const key of keys) if ((this.#kept.get(key)?.until ?? 0) <= now) this.#delete(key)
    return keys.size < this.#maxVariants
  }

  #delete(key: string): void {
    const record = this.#kept.get(key)
    if (!record) return
    const { index, bytes } = record
    this.#kept.delete(key)
    this.#bytes -= bytes
    if (index === undefined) return
    const keys = this.#variants.get(index)
    if (keys?.delete(key) && keys.size === 0) this.#variants.delete(index)
  }

  #evictOldest(): void {
    for (const [key, { until }] of this.#kept) {
      if (this.#kept.size <= this.#maxCount && this.#bytes <= this.#maxBytes) return
      this.#delete(key)
      // Where Redis is unavailable, the entry lasts until it expires.
      if (until > this.#namespace.clock.now()) this.#namespace.invalidate(key).catch(() => undefined)
    }
  }
}
