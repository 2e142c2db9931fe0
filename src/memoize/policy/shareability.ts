import type { HeaderFields } from '../engine/message.ts'
import { type CacheControl, combinedField, isToken, listField } from './fields.ts'

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
