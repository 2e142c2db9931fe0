import type { ResultEntry } from '../../locker/internal.ts'
import type { RequestDirectives } from '../policy/demands.ts'
import { type VaryIndex, variantKey } from '../policy/vary.ts'
import type { HttpRequest, Origin } from './message.ts'
import type { CacheEntry, StoredResponse } from './storage/stored-response.ts'

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
