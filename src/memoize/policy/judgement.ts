import type { Demands } from './demands.ts'
import type { StaleWindows } from './freshness.ts'

/** May a stored response answer a request: at once, at once while it is refreshed, or only after the origin was asked. */
export type Judgement = 'fresh' | 'stale' | 'refresh' | 'ask'

/** Judges a stored response that is `age` ms old. RFC 9111 §4, RFC 5861 §3. */
export function judge(stored: { lifetime: number } & StaleWindows, age: number, demands: Demands): Judgement {
  if (demands.noCache || age > demands.maxAge) return 'ask'
  const left = stored.lifetime - age
  if (left > 0 && left >= demands.minFresh) return 'fresh'
  if (demands.minFresh > 0) return 'ask'
  if (-left <= Math.min(demands.maxStale, stored.onDemand) && demands.maxStale > 0) return 'stale'
  return -left < stored.whileRevalidate ? 'refresh' : 'ask'
}

/** Whether it may stand in for an origin that failed. A client's no-cache does not forbid that. RFC 5861 §4. */
export function survivesError(stored: { lifetime: number } & StaleWindows, age: number): boolean {
  return age - stored.lifetime < stored.ifError
}

/** Statuses that count as a failure of the origin. RFC 5861 §4. */
export function isFailure(status: number): boolean {
  return status === 500 || status === 502 || status === 503 || status === 504
}
