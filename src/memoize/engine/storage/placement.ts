import { randomBytes } from 'node:crypto'
import type { WorkContext } from '../../../locker/index.ts'
import type { KeyNamespace } from '../../../locker/internal.ts'
import { tagsOf } from '../../policy/key.ts'
import { MAX_KEEP_MS } from '../../policy/plan.ts'
import { reflectsOrigin, type VaryIndex, variantKey, varyNames } from '../../policy/vary.ts'
import type { EntryRef } from '../lookup.ts'
import type { HttpRequest } from '../message.ts'
import type { ResolvedHttpOptions } from '../options.ts'
import { KeptResponses } from './holdings.ts'
import { RecordingBudget } from './recorded-bytes.ts'
import { type CacheEntry, StoredResponse } from './stored-response.ts'

/** How long a Vary index is kept at least, ms. */
const MIN_INDEX_TTL = 60_000

/** What the cache uses of a namespace of the locker. */
export type EntryNamespace = Pick<
  KeyNamespace<CacheEntry>,
  | 'clock'
  | 'timeout'
  | 'cached'
  | 'lastKnown'
  | 'lookup'
  | 'run'
  | 'setIfUnclaimed'
  | 'readVersions'
  | 'invalidate'
  | 'invalidateWithPending'
>

/** By this a fetch decides how long its result is kept: the part of a WorkContext that it uses. */
export type ResultContext = Pick<WorkContext, 'signal' | 'setTtl' | 'noStore'>

/** The context of a fetch without a claim. `ttl` is what the fetch decided; 0: do not store. */
export function standaloneContext(
  signal: AbortSignal = new AbortController().signal,
): ResultContext & { ttl: number } {
  return {
    signal,
    ttl: 0,
    setTtl(ms) {
      this.ttl = ms
    },
    noStore() {
      this.ttl = 0
    },
  }
}

/** Where an accepted response is stored: under the key of its entry, or under that of a variant of a new Vary index. */
export interface Placement {
  readonly response: StoredResponse
  /** Set when the Vary of the response names fields that the entry's key does not cover. */
  readonly newIndex: VaryIndex | undefined
}

/** Where a cache keeps its responses, and the bounds of what it keeps. */
export class ResponseStorage {
  readonly namespace: EntryNamespace
  readonly options: ResolvedHttpOptions
  readonly recordingBudget: RecordingBudget
  readonly #kept: KeptResponses

  constructor(namespace: EntryNamespace, options: ResolvedHttpOptions) {
    this.namespace = namespace
    this.options = options
    this.recordingBudget = new RecordingBudget(options.maxRecorded)
    this.#kept = new KeptResponses(namespace, options)
  }

  /** How long requests wait, and origins may take to begin a response, ms. */
  get timeout(): number {
    return this.options.timeout ?? this.namespace.timeout
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
      // An entry that cannot be stored, because Redis is away, is fetched again.
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
