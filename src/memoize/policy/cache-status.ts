import type { Cause } from '../engine/storage/storage.ts'

/** Why the origin was asked. RFC 9211 §2.2. */
export type Forwarded = 'bypass' | 'method' | 'request' | 'uri-miss' | 'vary-miss' | 'stale' | 'miss'

/** What became of a request here. Durations are ms. */
export interface CacheStatus {
  hit?: boolean
  /** How long it stays fresh; negative when it is stale. */
  ttl?: number
  forwarded?: Forwarded
  /** The status that the origin answered with, where the answer has another. */
  forwardedStatus?: number
  stored?: boolean
  /** Whether another request's answer served this one too. */
  collapsed?: boolean
  /** More about it, by a word of this cache: why nothing was kept, among others. */
  detail?: 'unverified' | 'not-stored' | Cause | undefined
}

/** The member of the Cache-Status field that a cache of this name adds. RFC 9211. */
export function cacheStatus(name: string, status: CacheStatus): string {
  const { hit, ttl, forwarded, forwardedStatus, stored, collapsed, detail } = status
  return [
    name,
    hit && 'hit',
    forwarded && `fwd=${forwarded}`,
    forwardedStatus !== undefined && `fwd-status=${forwardedStatus}`,
    stored && 'stored',
    collapsed && 'collapsed',
    ttl !== undefined && `ttl=${Math.ceil(ttl / 1_000)}`,
    detail && `detail=${detail}`,
  ]
    .filter(Boolean)
    .join('; ')
}
