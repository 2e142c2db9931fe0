import type { RequestDirectives } from './demands.ts'
import type { StaleWindows } from './freshness.ts'

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

/** Whether a status is an error of the origin. RFC 5861 §4. */
export function isOriginError(status: number): boolean {
  return status === 500 || status === 502 || status === 503 || status === 504
}
