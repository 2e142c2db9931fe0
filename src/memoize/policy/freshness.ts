import type { HeaderFields } from '../engine/message.ts'
import type { CacheControl } from './cache-control.ts'
import { combinedField, linesOf } from './fields.ts'
import { parseHttpDate } from './http-date.ts'

/** The heuristic lifetime is this fraction of the time since Last-Modified, at most a day. */
const HEURISTIC_FRACTION = 0.1
const MAX_HEURISTIC_MS = 24 * 60 * 60_000

/** RFC 9110 §15.1, without 206: partial responses are not stored. */
const HEURISTICALLY_CACHEABLE: ReadonlySet<number> = new Set([
  200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501,
])

/** The lifetime that a response states for shared caches, ms; undefined when it states none. RFC 9111 §4.2.1. */
export function explicitLifetime(headers: HeaderFields, control: CacheControl): number | undefined {
  if (control.hasUnqualified('no-cache')) return 0
  const seconds = control.seconds('s-maxage') ?? control.seconds('max-age')
  if (seconds !== undefined) return seconds * 1_000
  const expires = linesOf(headers, 'expires')
  if (expires.length === 0) return undefined
  const from = parseHttpDate(combinedField(headers, 'date')) ?? Date.now()
  // An invalid date, above all `0`, is in the past. The earliest of several counts. RFC 9111 §5.3.
  const earliest = expires.reduce(
    (least, line) => Math.min(least, parseHttpDate(line) ?? 0),
    Number.POSITIVE_INFINITY,
  )
  return Math.max(0, earliest - from)
}

/** The lifetime of a response that states none, from its Last-Modified, ms. RFC 9111 §4.2.2. */
export function heuristicLifetime(status: number, headers: HeaderFields, control: CacheControl): number {
  const changed = parseHttpDate(combinedField(headers, 'last-modified'))
  if (changed === undefined || !(HEURISTICALLY_CACHEABLE.has(status) || control.has('public'))) return 0
  const unchanged = (parseHttpDate(combinedField(headers, 'date')) ?? Date.now()) - changed
  return Math.min(Math.max(0, unchanged) * HEURISTIC_FRACTION, MAX_HEURISTIC_MS)
}

/** Whether `ttl` applies to a response that states no lifetime. RFC 9110 §15.1. */
export function isHeuristicallyCacheable(status: number): boolean {
  return HEURISTICALLY_CACHEABLE.has(status)
}

/** For how long past its lifetime a response may be served, ms. RFC 5861, RFC 9111 §4.2.4. */
export interface StaleWindows {
  /** While it is being refreshed. */
  readonly whileRevalidate: number
  /** When the origin fails. */
  readonly ifError: number
  /** When the request has max-stale. */
  readonly onDemand: number
}

/** The stale windows of a response. `defaults` apply where it states none. */
export function staleWindows(
  control: CacheControl,
  defaults: { staleWhileRevalidate: number; staleIfError: number },
): StaleWindows {
  if (control.hasUnqualified('no-cache') || control.has('must-revalidate') || control.has('proxy-revalidate'))
    return { whileRevalidate: 0, ifError: 0, onDemand: 0 }
  // s-maxage implies proxy-revalidate (RFC 9111 §5.2.2.10), but an explicit stale-* beside it counts.
  const impliesRevalidate = control.has('s-maxage')
  const stated = (name: string, otherwise: number): number => {
    const seconds = control.seconds(name)
    if (seconds !== undefined) return seconds * 1_000
    return impliesRevalidate ? 0 : otherwise
  }
  return {
    whileRevalidate: stated('stale-while-revalidate', defaults.staleWhileRevalidate),
    ifError: stated('stale-if-error', defaults.staleIfError),
    onDemand: impliesRevalidate ? 0 : Number.MAX_SAFE_INTEGER,
  }
}
