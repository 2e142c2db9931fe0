import type { HeaderFields } from '../engine/message.ts'
import { CacheControl } from './cache-control.ts'
import { linesOf } from './fields.ts'

/** The Cache-Control directives of a request. Durations are ms. RFC 9111 §5.2.1. */
export interface RequestDirectives {
  /** The response must not be stored. */
  noStore: boolean
  /** A stored response needs validation. */
  noCache: boolean
  /** The greatest age that the client accepts. */
  maxAge: number
  /** The least remaining freshness lifetime that the client accepts. */
  minFresh: number
  /** The greatest staleness that the client accepts. */
  maxStale: number
  /** The origin must not be called. */
  onlyIfCached: boolean
}

/** The directives of a request that has none. */
export const NO_DIRECTIVES: RequestDirectives = {
  noStore: false,
  noCache: false,
  maxAge: Number.POSITIVE_INFINITY,
  minFresh: 0,
  maxStale: 0,
  onlyIfCached: false,
}

export function requestDirectives(headers: HeaderFields): RequestDirectives {
  const lines = linesOf(headers, 'cache-control')
  if (lines.length === 0) {
    // Pragma counts only without Cache-Control. RFC 9111 §5.4.
    if (headers['pragma'] === undefined) return NO_DIRECTIVES
    const noCache = new CacheControl(linesOf(headers, 'pragma')).has('no-cache')
    return noCache ? { ...NO_DIRECTIVES, noCache } : NO_DIRECTIVES
  }
  const control = new CacheControl(lines)
  const duration = (name: string, absent: number): number => {
    const seconds = control.seconds(name)
    return seconds === undefined ? absent : seconds * 1_000
  }
  return {
    noStore: control.has('no-store'),
    noCache: control.has('no-cache'),
    maxAge: duration('max-age', Number.POSITIVE_INFINITY),
    minFresh: duration('min-fresh', 0),
    maxStale: control.hasNoArgument('max-stale') ? Number.POSITIVE_INFINITY : duration('max-stale', 0),
    onlyIfCached: control.has('only-if-cached'),
  }
}
