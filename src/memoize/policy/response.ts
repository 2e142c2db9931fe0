/**
 * How the cache reads a response: for whom it is, how long it may be used, and how long it is stored.
 *
 * - Shareability (RFC 9111 §3), fields that are not stored (§5.2.2.4)
 * - Age (RFC 9111 §4.2.3, §5.1)
 * - Freshness lifetime: explicit (§4.2.1), heuristic (§4.2.2, RFC 9110 §15.1), by the options
 * - Serving stale responses (RFC 9111 §4.2.4, RFC 5861)
 * - The storage plan of a response
 * - Reuse of a stored response (RFC 9111 §4)
 */

import { parseHttpDate } from '../../kernel/http-date.ts'
import type { HeaderFields } from '../engine/message.ts'
import { type CacheControl, combinedField, isToken, linesOf, listField, parseDeltaSeconds } from './fields.ts'
import type { RequestDirectives } from './request.ts'

/** Final statuses that this cache understands (see must-understand). RFC 9111 §3. */
const UNDERSTOOD_STATUSES: ReadonlySet<number> = new Set([
  ...[200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 307, 308],
  ...[
    400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 413, 414, 415, 416, 421, 422, 423, 424, 426, 428, 429,
  ],
  ...[431, 451, 500, 501, 502, 503, 504],
])

/** 4xx statuses that are about the resource. The others are about the request or its client. */
const RESOURCE_ERRORS: ReadonlySet<number> = new Set([404, 410, 414, 451])

/** Whether a status is about the resource: every client would get it. */
export function isAboutResource(status: number): boolean {
  return status < 400 || status >= 500 || RESOURCE_ERRORS.has(status)
}

/** The parts of a request and its response that decide whether the response may be shared. */
export interface ShareabilityInput {
  /** Whether the request has an Authorization. */
  authorized: boolean
  status: number
  headers: HeaderFields
  control: CacheControl
}

/** What the options allow beyond RFC 9111. */
export interface SharingOptions {
  shareSetCookie: boolean
  shareAuthorized: boolean
}

/**
 * What a private response tells the other requests of its key:
 *
 * - `resource`: responses of the resource are not shared (no-store, Vary: *, no freshness, a body too large or too slow).
 *   The others are forwarded, and for a while requests do not wait for each other (hit-for-pass).
 * - `request`: it is about this request, its client or this moment. The others fetch again.
 * - `failure`: the origin failed. The others get a stale response, or fetch again.
 */
export type PrivateScope = 'resource' | 'request' | 'failure'

/** Why a response is private. Cache-Status has it as `detail`. */
export type PrivateReason =
  | 'status'
  | 'must-understand'
  | 'no-store'
  | 'private'
  | 'set-cookie'
  | 'vary'
  | 'authorization'
  | 'stream'
  | 'not-fresh'
  | 'body-size'
  | 'no-room'
  | 'body-time'
  | 'unshared'

/** Reasons that lie in the request, its client or this moment. */
const REQUEST_REASONS: ReadonlySet<PrivateReason> = new Set([
  'status',
  'set-cookie',
  'authorization',
  'unshared',
  'no-room',
])

export function scopeOf(status: number, reason: PrivateReason): PrivateScope {
  if (status >= 500) return 'failure'
  return isAboutResource(status) && !REQUEST_REASONS.has(reason) ? 'resource' : 'request'
}

/** Why a response is private; undefined when a shared cache may store it. RFC 9111 §3. */
export function privateReason(
  { status, headers, authorized, control }: ShareabilityInput,
  sharing: SharingOptions,
): PrivateReason | undefined {
  if (status < 200 || status > 599 || status === 206 || status === 304) return 'status'
  if (control.has('must-understand') && !UNDERSTOOD_STATUSES.has(status)) return 'must-understand'
  // A cache that understands the status ignores a no-store beside must-understand. RFC 9111 §5.2.2.3.
  if (control.has('no-store') && !control.has('must-understand')) return 'no-store'
  if (control.hasUnqualified('private')) return 'private'
  if (headers['set-cookie'] !== undefined && !sharing.shareSetCookie) return 'set-cookie'
  // A malformed member may stand for any field.
  if (listField(headers, 'vary').some((name) => name === '*' || !isToken(name))) return 'vary'
  if (authorized && !sharing.shareAuthorized && !permitsAuthorized(control)) return 'authorization'
  if (combinedField(headers, 'content-type')?.trim().toLowerCase().startsWith('text/event-stream'))
    return 'stream'
  return undefined
}

/** Whether a response may answer requests with Authorization, whatever request it was made for. RFC 9111 §3.5. */
export function permitsAuthorized(control: CacheControl): boolean {
  return control.has('public') || control.has('s-maxage') || control.has('must-revalidate')
}

/** Fields that are not stored: `names`, and those of `private="…"` and `no-cache="…"`. RFC 9111 §5.2.2.4, §5.2.2.7. */
export function privateFieldsOf(control: CacheControl, names: readonly string[] = []): string[] {
  const all = [...names, ...control.fieldNames('private'), ...control.fieldNames('no-cache')]
  return [...new Set(all)].filter((name) => !NEVER_PRIVATE.has(name))
}

/** Fields that are stored in any case: without its Vary a response would match every request; the others the cache sets. */
const NEVER_PRIVATE: ReadonlySet<string> = new Set(['vary', 'content-length', 'date', 'cache-control'])

/** When a response was received. RFC 9111 §4.2.3. */
export interface ResponseTiming {
  /** By the wall clock, ms since 1970. */
  responseTime: number
  /** Time between request and response, by the monotonic clock, ms. */
  responseDelay: number
}

/** Date has whole seconds: an apparent age up to this may be 0, ms. */
const DATE_RESOLUTION = 1_000

/** The age of a response whose Age cannot be relied upon: it is not fresh, ms. */
export const UNKNOWN_AGE: number = 2 ** 31 * 1_000

/** The age of a response when it was received, ms: `corrected_initial_age`. RFC 9111 §4.2.3. */
export function initialAge(headers: HeaderFields, timing: ResponseTiming): number {
  const date = parseHttpDate(linesOf(headers, 'date')[0])
  const apparent = date === undefined ? 0 : timing.responseTime - date
  return Math.max(apparent <= DATE_RESOLUTION ? 0 : apparent, (ageField(headers) ?? 0) + timing.responseDelay)
}

/** The value of Age, ms. Undefined when the response has none. */
function ageField(headers: HeaderFields): number | undefined {
  const lines = linesOf(headers, 'age')
  if (lines.length === 0) return undefined
  // The first member of a list counts (RFC 9111 §5.1). Several lines, a repeated member or an invalid number make the age
  // unknown. The RFC would ignore an invalid Age; http-cache-tests requires that the response is not fresh.
  const members = (lines[0] ?? '').split(',').map((member) => member.trim())
  const isClear = lines.length === 1 && new Set(members).size === members.length
  const seconds = isClear ? parseDeltaSeconds(members[0]) : undefined
  return seconds === undefined ? UNKNOWN_AGE : seconds * 1_000
}

/** The heuristic lifetime is this fraction of the time since Last-Modified, at most a day. */
const HEURISTIC_FRACTION = 0.1

const MAX_HEURISTIC_MS = 24 * 60 * 60_000

/** RFC 9110 §15.1, without 206: partial responses are not stored. */
const HEURISTICALLY_CACHEABLE: ReadonlySet<number> = new Set([
  200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501,
])

/** Whether a response that states no lifetime may be given one. RFC 9110 §15.1, RFC 9111 §4.2.2. */
function isHeuristicallyCacheable(status: number, control: CacheControl): boolean {
  return HEURISTICALLY_CACHEABLE.has(status) || control.has('public')
}

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
  if (changed === undefined || !isHeuristicallyCacheable(status, control)) return 0
  const unchanged = (parseHttpDate(combinedField(headers, 'date')) ?? Date.now()) - changed
  return Math.min(Math.max(0, unchanged) * HEURISTIC_FRACTION, MAX_HEURISTIC_MS)
}

/** The lifetime of a response that states none, by the options, ms. */
function defaultLifetime(status: number, control: CacheControl, { ttl, errorTtl }: LifetimeOptions): number {
  if (status >= 400) return errorTtl
  return isHeuristicallyCacheable(status, control) ? ttl : 0
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

const NO_WINDOWS: StaleWindows = { whileRevalidate: 0, ifError: 0, onDemand: 0 }

/** The stale windows of a response. `defaults` apply where it states none. */
export function staleWindows(
  control: CacheControl,
  defaults: { staleWhileRevalidate: number; staleIfError: number },
): StaleWindows {
  if (control.hasUnqualified('no-cache') || control.has('must-revalidate') || control.has('proxy-revalidate'))
    return NO_WINDOWS
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

/** Whether a status is an error of the origin. RFC 5861 §4. */
export function isOriginError(status: number): boolean {
  return status === 500 || status === 502 || status === 503 || status === 504
}

/** The options that decide how long a response is fresh and stored, ms. */
export interface LifetimeOptions {
  ttl: number
  errorTtl: number
  heuristics: boolean
  staleWhileRevalidate: number
  staleIfError: number
  /** Whether the origin answers conditional requests with 304. */
  revalidate: boolean
}

/** How long a shareable response is fresh, and how long it is stored, ms. */
export interface StoragePlan extends StaleWindows {
  /** Its age when it was received. */
  readonly age: number
  /** The freshness lifetime: the age up to which it is fresh. */
  readonly lifetime: number
  /** How long it is stored, from its reception on. 0: only the requests that wait for it receive it. */
  readonly keep: number
  /** Whether requests that arrived before it, and wait for it, receive it even if it is not fresh. */
  readonly collapse: boolean
}

/** The plan of a private response. */
const NOT_STORED: StoragePlan = { ...NO_WINDOWS, age: 0, lifetime: 0, keep: 0, collapse: false }

/** The longest time that an entry is stored. */
export const MAX_KEEP_MS: number = 30 * 24 * 60 * 60_000

/** How long past its lifetime a response is stored for validation. */
const VALIDATION_WINDOW_MS = 24 * 60 * 60_000

/** Decides how long a response is fresh and stored. */
export function planFor(
  response: { status: number; headers: HeaderFields },
  control: CacheControl,
  timing: ResponseTiming,
  lifetimes: LifetimeOptions,
): StoragePlan {
  const { status, headers } = response
  const stated = explicitLifetime(headers, control)
  const heuristic = lifetimes.heuristics ? heuristicLifetime(status, headers, control) : 0
  // The error is about this one request.
  if (stated === undefined && heuristic === 0 && !isAboutResource(status)) return NOT_STORED
  const lifetime = stated ?? (heuristic || defaultLifetime(status, control, lifetimes))
  const windows = staleWindowsFor(status, control, lifetimes)
  const age = initialAge(headers, timing)
  const servable = lifetime + Math.max(windows.whileRevalidate, windows.ifError) - age
  const validated = lifetimes.revalidate && hasValidator(headers) && status < 500
  const useful = Math.max(servable, validated ? Math.max(0, lifetime - age) + VALIDATION_WINDOW_MS : 0)
  const keep = Math.floor(Math.min(Math.max(0, useful), MAX_KEEP_MS))
  // Most frameworks turn an exception of the handler into a 500: it says nothing about other requests.
  const isThrown = status === 500 && lifetime === 0
  return { ...windows, age, lifetime, keep, collapse: stated === undefined && !isThrown }
}

/** The plan of a response that only the requests that wait for it receive: it is not stored. */
export function waitersOnly(plan: StoragePlan): StoragePlan {
  return { ...plan, keep: 0, collapse: true }
}

/** A stale error is never served. */
function staleWindowsFor(status: number, control: CacheControl, lifetimes: LifetimeOptions): StaleWindows {
  if (status >= 500) return NO_WINDOWS
  return staleWindows(control, status < 400 ? lifetimes : { staleWhileRevalidate: 0, staleIfError: 0 })
}

/** Whether the response can be validated. RFC 9110 §8.8. */
function hasValidator(headers: HeaderFields): boolean {
  return headers['etag'] !== undefined || headers['last-modified'] !== undefined
}

/** Whether a stored response may answer a request, and why: fresh, by the request's max-stale, while it is refreshed, or not. */
export type Reusability = 'fresh' | 'max-stale' | 'stale-while-revalidate' | 'no'

/** Whether a stored response that is `age` ms old may answer a request. RFC 9111 §4, RFC 5861 §3. */
export function reusability(
  stored: { lifetime: number } & StaleWindows,
  age: number,
  directives: RequestDirectives,
): Reusability {
  if (directives.noCache || age > directives.maxAge) return 'no'
  const left = stored.lifetime - age
  if (left > 0 && left >= directives.minFresh) return 'fresh'
  if (directives.minFresh > 0) return 'no'
  if (-left <= Math.min(directives.maxStale, stored.onDemand) && directives.maxStale > 0) return 'max-stale'
  return -left < stored.whileRevalidate ? 'stale-while-revalidate' : 'no'
}

/** Whether a stored response may be served in place of an error; even with the request's no-cache. RFC 5861 §4. */
export function mayStaleIfError(stored: { lifetime: number } & StaleWindows, age: number): boolean {
  return age - stored.lifetime < stored.ifError
}
