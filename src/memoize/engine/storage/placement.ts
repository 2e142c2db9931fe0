import { randomBytes } from 'node:crypto'
import type { WorkContext } from '../../../locker/flight/waiter.ts'
import type { KeyNamespace } from '../../../locker/key-namespace.ts'
import { tagsOf } from '../../policy/key.ts'
import { LONGEST_KEEP } from '../../policy/plan.ts'
import { reflectsOrigin, type VaryIndex, variantKey, varyNames } from '../../policy/vary.ts'
import type { Place } from '../lookup.ts'
import type { HttpRequest } from '../message.ts'
import type { ResolvedHttpOptions } from '../options.ts'
import type { Holdings } from './holdings.ts'
import type { Kept, StoredResponse } from './stored-response.ts'

/** How long it is remembered at least which fields a resource varies by, ms. */
const INDEX_TTL = 60_000

/** What is used of a space. */
export type KeptSpace = Pick<
  KeyNamespace<Kept>,
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

/** What placing a response takes. */
export interface PlacementTerms {
  space: KeptSpace
  options: ResolvedHttpOptions
  holdings: Holdings
  decision: Decision
}

/** What a work may decide of its result: all that is used of a WorkContext. */
export type Decision = Pick<WorkContext, 'signal' | 'setTtl' | 'noStore'>

/** Decisions outside a space: on behalf of one client alone. `ttl` is what was decided. */
export function ownDecision(signal: AbortSignal = new AbortController().signal): Decision & { ttl: number } {
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
 * Puts a response where those who ask for it look: at the key that is being computed, or at that of a variant, which an
 * index at the primary key leads to. Returns what the work of the key is to return.
 */
export async function placed(
  made: StoredResponse,
  request: HttpRequest,
  { index, primary, key }: Place,
  { space, options, holdings, decision }: PlacementTerms,
): Promise<Kept> {
  const always = reflectsOrigin(request.headers, made.headers) ? [...options.vary, 'origin'] : options.vary
  const names = varyNames(made.headers, always)
  const indexed = new Set(index?.names)
  const known = names.every((name) => indexed.has(name))
  const size = { body: made.body.length, keep: made.plan.keep }
  // One too many, or too large, is for those alone who wait.
  if (known && made.plan.keep > 0 && !holdings.tryAdd(key, { ...size, ...(index && { index: index.id }) }))
    made.plan.keep = 0
  const { keep } = made.plan
  if (known) {
    // What is not kept takes the place of what was kept all the same: that is over. A failure does not.
    if (keep > 0 || made.status < 500) decision.setTtl(keep)
    else decision.noStore({ bypassFor: 0 })
    return made
  }
  const wider = widened(index, names)
  const tags = tagsOf(request, options)
  const put = (key: string, kept: Kept, ttl: number): Promise<unknown> =>
    // What cannot be kept (Redis is away, say) is made again.
    space.setIfUnclaimed(key, kept, { ttl, tags }).catch(() => false)
  const ttl = Math.min(Math.max(keep, INDEX_TTL), LONGEST_KEEP)
  holdings.tryAdd(primary, { body: 0, keep: ttl })
  if (index) {
    // The index alone: whether the resource has changed since this response was begun is not known of the primary key.
    await put(primary, { index: wider }, ttl)
    decision.noStore({ bypassFor: 0 })
  } else {
    // Unreachable, should the primary key have been invalidated: its index is not kept then.
    const variant = variantKey(primary, wider, request.headers)
    if (keep > 0 && holdings.tryAdd(variant, { ...size, index: wider.id })) await put(variant, made, keep)
    decision.setTtl(ttl)
  }
  return { index: wider }
}

/** An index of these names and those that were known before. */
function widened(known: VaryIndex | undefined, names: readonly string[]): VaryIndex {
  return {
    names: [...new Set([...names, ...(known?.names ?? [])])].sort(),
    id: randomBytes(12).toString('base64url'),
  }
}
