import type { CacheControl } from '../../policy/cache-control.ts'
import { fieldOf, isToken, listOf } from '../../policy/fields.ts'
import type { HeaderFields } from '../message.ts'

/** Final statuses whose meaning for a cache is known here. */
const UNDERSTOOD: ReadonlySet<number> = new Set([
  ...[200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 307, 308],
  ...[
    400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 413, 414, 415, 416, 421, 422, 423, 424, 426, 428, 429,
  ],
  ...[431, 451, 500, 501, 502, 503, 504],
])

/** Errors that are about the resource, whoever asks for it; like all from 500 on. */
const OF_THE_RESOURCE: ReadonlySet<number> = new Set([404, 410, 414, 451])

/** Whether a status says something of the resource. Other errors are about who asked, or how. */
export function isAboutResource(status: number): boolean {
  return status < 400 || status >= 500 || OF_THE_RESOURCE.has(status)
}

/** What of a request and its response decides whether others may be given that response. */
export interface Exchange {
  /** Whether the request carried credentials. */
  authorized: boolean
  status: number
  headers: HeaderFields
  control: CacheControl
}

/** What the user allows beyond RFC 9111. */
export interface Sharing {
  shareSetCookie: boolean
  shareAuthorized: boolean
}

/**
 * What it means for those who wait that a response is for its own client alone:
 * resource  the resource says so of itself (also by Vary: *, no freshness at all, a body that is too large or too slow),
 *           and will say so to the others: nobody waits for it for a while
 * asker     because of who asked, or how: it says nothing to the others
 * failed    the origin failed
 */
export type Reason = 'resource' | 'asker' | 'failed'

/** Why a response is for its own client alone, by a word of ours. */
export type Cause =
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

/** These are about one who asks, or this moment, and not about the resource. */
const OF_THE_ASKER: ReadonlySet<Cause> = new Set([
  'status',
  'set-cookie',
  'authorization',
  'unshared',
  'no-room',
])

export function reasonFor(status: number, cause: Cause): Reason {
  if (status >= 500) return 'failed'
  return isAboutResource(status) && !OF_THE_ASKER.has(cause) ? 'resource' : 'asker'
}

/** Why a response is for its own client alone, or undefined when others may have it. RFC 9111 §3, shared cache. */
export function privateCause(exchange: Exchange, sharing: Sharing): Cause | undefined {
  const { status, headers, control } = exchange
  if (status < 200 || status > 599 || status === 206 || status === 304) return 'status'
  const understood = UNDERSTOOD.has(status)
  if (control.has('must-understand') && !understood) return 'must-understand'
  // Who understands the status may ignore the no-store beside must-understand. RFC 9111 §5.2.2.3.
  if (control.has('no-store') && !control.has('must-understand')) return 'no-store'
  if (control.bare('private')) return 'private'
  if (headers['set-cookie'] !== undefined && !sharing.shareSetCookie) return 'set-cookie'
  // What cannot be read may name anything.
  if (listOf(headers, 'vary').some((name) => name === '*' || !isToken(name))) return 'vary'
  if (exchange.authorized && !sharing.shareAuthorized && !reusableForAuthorized(control))
    return 'authorization'
  if (fieldOf(headers, 'content-type')?.trim().toLowerCase().startsWith('text/event-stream')) return 'stream'
  return undefined
}

/** Whether a response may be given to requests with credentials, whoever asked first. RFC 9111 §3.5. */
export function reusableForAuthorized(control: CacheControl): boolean {
  return control.has('public') || control.has('s-maxage') || control.has('must-revalidate')
}

/** Fields that stay out of a shared cache: `own`, and those that the response wants so, by `private="a"`, `no-cache="b"`. */
export function withheldFields(control: CacheControl, own: readonly string[] = []): string[] {
  const names = [...own, ...control.names('private'), ...control.names('no-cache')]
  return [...new Set(names)].filter((name) => !NEEDED.has(name))
}

/** Without its Vary a response would be taken for everyone's; and the others are what the cache itself says of it. */
const NEEDED: ReadonlySet<string> = new Set(['vary', 'content-length', 'date', 'cache-control'])
