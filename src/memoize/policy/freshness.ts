import type { HeaderFields } from '../engine/message.ts'
import type { CacheControl } from './cache-control.ts'
import { fieldOf, linesOf } from './fields.ts'
import { httpDate } from './http-date.ts'

/** Part of the time since its last change for which a response is taken for fresh, and the longest such time, ms. */
const HEURISTIC_PART = 0.1
const LONGEST_HEURISTIC = 24 * 60 * 60_000

/** Statuses that may be taken for fresh when nothing says how long. RFC 9110 §15.1, but 206. */
const HEURISTIC: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])

/** How long a response is fresh by its own words, ms; undefined when it says nothing. RFC 9111 §4.2.1, shared cache. */
export function statedLifetime(headers: HeaderFields, control: CacheControl): number | undefined {
  if (control.bare('no-cache')) return 0
  const seconds = control.seconds('s-maxage') ?? control.seconds('max-age')
  if (seconds !== undefined) return seconds * 1_000
  const expires = linesOf(headers, 'expires')
  if (expires.length === 0) return undefined
  const from = httpDate(fieldOf(headers, 'date')) ?? Date.now()
  // What is no date, `0` above all, is in the past. Of several the earliest counts.
  const earliest = expires.reduce(
    (least, line) => Math.min(least, httpDate(line) ?? 0),
    Number.POSITIVE_INFINITY,
  )
  return Math.max(0, earliest - from)
}

/** How long a response that says nothing is taken for fresh, by when it last changed, ms. RFC 9111 §4.2.2. */
export function heuristicLifetime(status: number, headers: HeaderFields, control: CacheControl): number {
  const changed = httpDate(fieldOf(headers, 'last-modified'))
  if (changed === undefined || !(HEURISTIC.has(status) || control.has('public'))) return 0
  const unchanged = (httpDate(fieldOf(headers, 'date')) ?? Date.now()) - changed
  return Math.min(Math.max(0, unchanged) * HEURISTIC_PART, LONGEST_HEURISTIC)
}

/** Whether a response without any word on freshness may be given the user's own lifetime. */
export function cacheableByDefault(status: number): boolean {
  return HEURISTIC.has(status)
}

/** For how long past its freshness a response may be used, ms. RFC 5861, RFC 9111 §4.2.4. */
export interface StaleWindows {
  /** While it is being refreshed. */
  whileRevalidate: number
  /** When the origin fails. */
  ifError: number
  /** When the client asks for it by max-stale. */
  onDemand: number
}

/** `defaults` hold where the response says nothing. */
export function staleWindows(
  control: CacheControl,
  defaults: { staleWhileRevalidate: number; staleIfError: number },
): StaleWindows {
  if (control.bare('no-cache') || control.has('must-revalidate') || control.has('proxy-revalidate'))
    return { whileRevalidate: 0, ifError: 0, onDemand: 0 }
  // s-maxage means proxy-revalidate too, but who adds a stale-* to it in words means that.
  const silent = control.has('s-maxage')
  const stated = (name: string, otherwise: number): number => {
    const seconds = control.seconds(name)
    if (seconds !== undefined) return seconds * 1_000
    return silent ? 0 : otherwise
  }
  return {
    whileRevalidate: stated('stale-while-revalidate', defaults.staleWhileRevalidate),
    ifError: stated('stale-if-error', defaults.staleIfError),
    onDemand: silent ? 0 : Number.MAX_SAFE_INTEGER,
  }
}
