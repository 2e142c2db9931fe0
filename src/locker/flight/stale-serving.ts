import { emit, hasListeners } from '../../kernel/telemetry.ts'
import { parseTagVersions } from '../cache/tag-guard.ts'
import type { Call } from '../call.ts'
import type { StaleValue } from '../store/store.ts'
import { errorFor, type StaleResult, type Waiter, type WaiterSet } from './waiter-set.ts'

// A stale result is served to the waiters that accept it: while it is revalidated (`staleWhileRevalidate`), instead of a failure
// (`staleIfError`), or after they have waited for `softTimeout`. A strict waiter that joined after the result was last known
// to be valid does not receive it: it must ask the store. While Redis is unavailable, what the cache of this process has is
// served to callers that accept that (`onUnavailable`).

/** Takes the stale value out of a reply to the last request. One that cannot be read is not served. */
export function readStale(waiters: WaiterSet, call: Call, value: StaleValue): void {
  const { bytes, fence, staleFor, staleLeft, tags } = value
  const { sentAt, sentSeq: seq } = waiters
  const staleSince = sentAt - staleFor
  try {
    const terms = { fence, bytes, ttlLeft: 0, invalidated: false, staleLeft, tags: '' }
    const decoded = call.read({ kind: 'value', ...terms }, staleSince)
    const names = [...parseTagVersions(tags).keys()]
    setStale(waiters, { ...decoded, fence, staleSince, staleUntil: sentAt + staleLeft, tags: names, seq })
  } catch {
    // The work will bring another.
    waiters.stale = undefined
  }
}

/** Sets the stale result, and serves it at once to the waiters that have waited for `softTimeout`. */
export function setStale(waiters: WaiterSet, stale: StaleResult): void {
  waiters.stale = stale
  for (const waiter of waiters) if (waiter.softTimedOut) serveAfterSoftTimeout(waiters, waiter)
}

/**
 * The stale value answers the claim, since another process revalidates it: serves it, and caches it in this process.
 * Returns whether waiters are left that accept it, and must ask whether it is still valid.
 */
export function serveAnsweredStale(waiters: WaiterSet, call: Call, { fence, tags }: StaleValue): boolean {
  const { stale } = waiters
  if (stale && waiters.isUnchanged(tags))
    call.cacheResult(stale, fence, tags, stale.staleSince, stale.staleUntil)
  serveWhileRevalidating(waiters, false)
  return unvalidatedWaiters(waiters).length > 0
}

/**
 * Serves the stale result to waiters whose `staleWhileRevalidate` still covers it. Returns whether there were any.
 * `processing`: the work that revalidates it is of this flight.
 */
export function serveWhileRevalidating(waiters: WaiterSet, processing: boolean): boolean {
  if (!waiters.stale) return false
  const promised = waiters.revalidationPromised
  // The waiters that are served leave, and must not take the work with them.
  if (processing) waiters.revalidationPromised = true
  const served = serveEach(waiters, (call) => call.staleWhileRevalidate)
  waiters.revalidationPromised = promised || (processing && served)
  return served
}

/** The work has failed. */
export function serveInsteadOfError(waiters: WaiterSet): void {
  serveEach(waiters, (call) => Math.max(call.staleIfError, call.staleWhileRevalidate))
}

/** Serves it to a waiter that has waited for `softTimeout`. Returns whether it was served. */
export function serveAfterSoftTimeout(waiters: WaiterSet, waiter: Waiter): boolean {
  return serve(waiters, waiter, Number.POSITIVE_INFINITY)
}

/** Waiters whose `staleWhileRevalidate` covers it, but which must ask the store whether it is still valid. */
export function unvalidatedWaiters(waiters: WaiterSet): Waiter[] {
  return [...waiters].filter(
    (waiter) =>
      !isValidated(waiters, waiter) && covers(waiters, waiter.call, waiter.call.staleWhileRevalidate),
  )
}

function serveEach(waiters: WaiterSet, maxStaleness: (call: Call) => number): boolean {
  let served = false
  for (const waiter of waiters) if (serve(waiters, waiter, maxStaleness(waiter.call))) served = true
  return served
}

function serve(waiters: WaiterSet, waiter: Waiter, maxStaleness: number): boolean {
  const { stale } = waiters
  const { key, locker } = waiter.call
  const now = locker.clock.now()
  if (!stale || now >= stale.staleUntil) return false
  if (!covers(waiters, waiter.call, maxStaleness) || !isValidated(waiters, waiter)) return false
  locker.counters.stale++
  if (hasListeners('stale')) emit('stale', { key, staleFor: now - stale.staleSince })
  waiter.resolve(stale.result)
  return true
}

/** Whether it is new enough for a call, and has been stale for less than `maxStaleness`, ms. */
function covers({ stale }: WaiterSet, { refresh, afterFence, locker }: Call, maxStaleness: number): boolean {
  if (!stale || refresh || stale.fence <= afterFence) return false
  return locker.clock.now() - stale.staleSince < maxStaleness
}

function isValidated(waiters: WaiterSet, { strict, seq }: Waiter): boolean {
  return !strict || seq <= (waiters.stale?.seq ?? 0) || waiters.isValidated(seq)
}

/** Redis is unavailable: leaves the waiters that accept a result of this process alone, and for which the cache has none. */
export function serveWithoutStore(waiters: WaiterSet, error: unknown): void {
  for (const waiter of waiters) {
    const known = lastKnown(waiter.call)
    if (known) waiter.resolve(known.result)
  }
  rejectUnlessUnshared(waiters, error)
}

/** Rejects the waiters that do not accept a result of this process alone, unless the cache of this process has one. */
export function rejectUnlessUnshared(waiters: WaiterSet, error: unknown): void {
  for (const waiter of waiters) {
    if (!waiter.call.requiresShared) continue
    const known = lastKnown(waiter.call)
    if (known) waiter.resolve(known.result)
    else waiter.reject(errorFor(error)(waiter.call.key))
  }
}

/**
 * What the cache of this process has for a call while Redis is unavailable, if the call accepts that: it is fresh or within
 * the call's `staleIfError`, but an invalidation of it may have been missed.
 */
export function lastKnown(call: Call): { result: unknown } | undefined {
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
