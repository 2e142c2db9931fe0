import type { HeaderFields } from '../engine/message.ts'
import { CacheControl } from './cache-control.ts'
import { linesOf } from './fields.ts'

/** What a request demands of a cache. Durations are ms. RFC 9111 §5.2.1. */
export interface Demands {
  /** Nothing of it or its response is to be stored. */
  noStore: boolean
  /** Only what the origin has confirmed since. */
  noCache: boolean
  /** The oldest that will do. */
  maxAge: number
  /** How long it must stay fresh yet. */
  minFresh: number
  /** How long ago it may have become stale. */
  maxStale: number
  /** The origin is not to be asked. */
  onlyIfCached: boolean
}

/** Of a request that demands nothing. */
export const NO_DEMANDS: Demands = {
  noStore: false,
  noCache: false,
  maxAge: Number.POSITIVE_INFINITY,
  minFresh: 0,
  maxStale: 0,
  onlyIfCached: false,
}

export function demandsOf(headers: HeaderFields): Demands {
  const lines = linesOf(headers, 'cache-control')
  if (lines.length === 0) {
    // Only where there is no Cache-Control. RFC 9111 §5.4.
    if (headers['pragma'] === undefined) return NO_DEMANDS
    const noCache = new CacheControl(linesOf(headers, 'pragma')).has('no-cache')
    return noCache ? { ...NO_DEMANDS, noCache } : NO_DEMANDS
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
    maxStale: control.valueless('max-stale') ? Number.POSITIVE_INFINITY : duration('max-stale', 0),
    onlyIfCached: control.has('only-if-cached'),
  }
}
