import { emit, hasListeners } from '../../kernel/telemetry.ts'
import type { Call } from '../call.ts'

/** Whether a caller would rather fail than have a result that was made for this process alone. */
export function requiresShared({ onUnavailable }: Pick<Call, 'onUnavailable'>): boolean {
  return onUnavailable === 'fail' || onUnavailable === 'cached'
}

/**
 * What this process's cache has for a call while Redis is away, and the call accepts that: it is fresh or within the
 * call's `staleIfError`, but an invalidation of it may have gone unheard.
 */
export function serveLastKnown(call: Call): { result: unknown } | undefined {
  const { key, name, locker, onUnavailable, afterFence, staleIfError, refresh } = call
  if (refresh || (onUnavailable !== 'cached' && onUnavailable !== 'cached-local')) return undefined
  const now = locker.clock.now()
  const entry = locker.cache?.lastKnown(name, now)
  if (!entry || entry.fence <= afterFence) return undefined
  const staleFor = Math.max(0, now - entry.freshUntil)
  if (staleFor > 0 && staleFor >= staleIfError) return undefined
  locker.counters.unverified++
  if (hasListeners('unverified')) emit('unverified', { key, staleFor })
  return { result: call.asUnverified ? call.asUnverified(entry.result) : entry.result }
}
