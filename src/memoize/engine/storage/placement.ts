import { randomBytes } from 'node:crypto'
import type { WorkContext } from '../../../locker/index.ts'
import type { KeyNamespace } from '../../../locker/internal.ts'
import { tagsOf } from '../../policy/key.ts'
import { MAX_KEEP_MS } from '../../policy/plan.ts'
import { reflectsOrigin, type VaryIndex, variantKey, varyNames } from '../../policy/vary.ts'
import type { EntryRef } from '../lookup.ts'
import type { HttpRequest } from '../message.ts'
import type { ResolvedHttpOptions } from '../options.ts'
import type { KeptResponses } from './holdings.ts'
import type { CacheEntry, StoredResponse } from './stored-response.ts'

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

export interface StorageTerms {
  namespace: EntryNamespace
  options: ResolvedHttpOptions
  keptResponses: KeptResponses
  context: ResultContext
}

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

/**
 * Decides under which key a response is stored, and returns the result of the work for the key of `entry`. Where the Vary
 * of the response names only fields that the entry's key covers, that is the response itself, stored by the locker with
 * the ttl that is set here. Otherwise it is a new Vary index, which leads other requests to the key of their variant.
 */
export async function storeResponse(
  response: StoredResponse,
  request: HttpRequest,
  { index, primaryKey, key }: EntryRef,
  { namespace, options, keptResponses, context }: StorageTerms,
): Promise<CacheEntry> {
  const { headers, plan, body, status } = response
  const always = reflectsOrigin(request.headers, headers) ? [...options.vary, 'origin'] : options.vary
  const names = varyNames(headers, always)
  const indexed = new Set(index?.names)
  const isCovered = names.every((name) => indexed.has(name))
  const size = { body: body.length, keep: plan.keep }
  // A response that is too large, or one variant too many, goes only to the requests that wait for it.
  if (
    isCovered &&
    plan.keep > 0 &&
    !keptResponses.tryAdd(key, { ...size, ...(index && { index: index.id }) })
  )
    plan.keep = 0
  const { keep } = plan
  if (isCovered) {
    // A ttl of 0 removes the response that was stored before. A server error leaves it.
    if (keep > 0 || status < 500) context.setTtl(keep)
    else context.noStore({ bypassFor: 0 })
    return response
  }
  const merged = mergeVary(index, names)
  const tags = tagsOf(request, options)
  const put = (key: string, entry: CacheEntry, ttl: number): Promise<unknown> =>
    // An entry that cannot be stored, because Redis is away, is fetched again.
    namespace.setIfUnclaimed(key, entry, { ttl, tags }).catch(() => false)
  const ttl = Math.min(Math.max(keep, MIN_INDEX_TTL), MAX_KEEP_MS)
  keptResponses.tryAdd(primaryKey, { body: 0, keep: ttl })
  if (index) {
    // Only the index is stored: the claim is of a variant, so an invalidation of the primary key since would be missed.
    await put(primaryKey, { index: merged }, ttl)
    context.noStore({ bypassFor: 0 })
  } else {
    // If the primary key was invalidated meanwhile, its index is not accepted, and this variant cannot be reached.
    const variant = variantKey(primaryKey, merged, request.headers)
    if (keep > 0 && keptResponses.tryAdd(variant, { ...size, index: merged.id }))
      await put(variant, response, keep)
    context.setTtl(ttl)
  }
  return { index: merged }
}

/** An index of the names of `known` and these. */
function mergeVary(known: VaryIndex | undefined, names: readonly string[]): VaryIndex {
  return {
    names: [...new Set([...names, ...(known?.names ?? [])])].sort(),
    id: randomBytes(12).toString('base64url'),
  }
}
