import type { ResultEntry } from '../../locker/key-namespace.ts'
import type { Demands } from '../policy/demands.ts'
import { type VaryIndex, variantKey } from '../policy/vary.ts'
import type { HttpRequest, Origin } from './message.ts'
import type { Kept, StoredResponse } from './storage/stored-response.ts'

/** One request on its way through the cache. */
export interface Visit {
  request: HttpRequest
  origin: Origin
  demands: Demands
  /** The key of the resource that it names. */
  primary: string
  /** When it came, by the clock of the space. */
  since: number
}

/** Where the response to a visit is kept, as far as is known. */
export interface Place {
  primary: string
  /** Of the very response: the primary one unless the resource varies. */
  key: string
  index: VaryIndex | undefined
  /** What is kept there and is not fresh enough. */
  stale: ResultEntry<StoredResponse> | undefined
}

/** Where to look first. */
export function firstPlace({ primary }: Visit): Place {
  return { primary, key: primary, index: undefined, stale: undefined }
}

/** Where to look when the resource turned out to vary. */
export function variantPlace({ primary, request }: Visit, index: VaryIndex): Place {
  return { primary, key: variantKey(primary, index, request.headers), index, stale: undefined }
}

/** The index that was found in place of a response. */
export function indexIn(found: ResultEntry<Kept> | undefined): VaryIndex | undefined {
  const value = found?.value
  return typeof value === 'object' && 'index' in value ? value.index : undefined
}
