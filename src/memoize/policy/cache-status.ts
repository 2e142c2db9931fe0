import type { PrivateReason } from '../engine/storage/storage.ts'

/** Why a request was forwarded to the origin: `fwd`. RFC 9211 §2.2. */
export type ForwardReason = 'bypass' | 'method' | 'request' | 'uri-miss' | 'vary-miss' | 'stale' | 'miss'

/** How the cache handled a request. Durations are ms. RFC 9211 §2. */
export interface CacheStatus {
  hit?: boolean
  /** The remaining freshness lifetime; negative for a stale response. */
  ttl?: number
  forwardReason?: ForwardReason
  /** The status of the origin's response, if the client gets another. */
  originStatus?: number
  stored?: boolean
  /** Whether the request was answered by another request's response. */
  collapsed?: boolean
  /** Words of this cache, such as the reason why a response is private. */
  detail?: 'unverified' | 'not-stored' | PrivateReason | undefined
}

/** The member that a cache of this name adds to Cache-Status. RFC 9211. */
export function cacheStatus(name: string, status: CacheStatus): string {
  const { hit, ttl, forwardReason, originStatus, stored, collapsed, detail } = status
  return [
    name,
    hit && 'hit',
    forwardReason && `fwd=${forwardReason}`,
    originStatus !== undefined && `fwd-status=${originStatus}`,
    stored && 'stored',
    collapsed && 'collapsed',
    ttl !== undefined && `ttl=${Math.ceil(ttl / 1_000)}`,
    detail && `detail=${detail}`,
  ]
    .filter(Boolean)
    .join('; ')
}

/** The lines of Cache-Status in raw headers (name, value, …). */
export function cacheStatusLines(raw: readonly string[]): string[] {
  return raw.filter((_, at) => at % 2 === 1 && raw[at - 1] === 'cache-status')
}
