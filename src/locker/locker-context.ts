import type { RemoteFailure } from '../errors.ts'
import type { TransientSet, TransientSetMap } from '../kernel/collections.ts'
import { emit, hasListeners } from '../kernel/telemetry.ts'
import type { Clock } from '../kernel/time.ts'
import type { WorkScheduler } from '../kernel/work-scheduler.ts'
import type { ResultCache } from './cache/result-cache.ts'
import type { ActiveLease } from './processor/lease-state.ts'
import type { Store } from './store/store.ts'

/** Counters of a locker, from its construction on. */
export class Counters {
  /** Results read from the store. */
  hits = 0
  /** Callers that joined a flight of their process. */
  joins = 0
  /** Grants received. */
  grants = 0
  /** Grants of leases that another process had let expire. */
  takeovers = 0
  /** Times that a flight was parked behind another process. */
  parks = 0
  /** Works that have ended; those of them that failed. */
  works = 0
  failures = 0
  /** Results and failures that the store accepted. */
  settled = 0
  /** Leases lost. */
  lost = 0
  /** Waiters that were rejected at their deadline; by their signal. */
  timeouts = 0
  aborts = 0
  /** Stale results served; works that ran in a bypass. */
  stale = 0
  bypasses = 0
  /** Stored values that the codec could not decode. Each was computed again. */
  undecodable = 0
  /** Results served from this process's cache while Redis was unavailable. */
  unverified = 0
  /** Claims that failed because Redis was unavailable; works that therefore ran for this process alone. */
  unavailable = 0
  unshared = 0
}

/** Counts a result that was read from the store. */
export function countHit(counters: Counters, key: string): void {
  counters.hits++
  if (hasListeners('hit')) emit('hit', { key, local: false })
}

/** Counts a stored value that the codec could not decode: another codec wrote it. It is treated as a miss. */
export function countUndecodable(counters: Counters, key: string, fence: number): void {
  counters.undecodable++
  emit('undecodable', { key, fence })
}

/** A work runs for this process alone, or for its caller alone. */
export function countUnshared(
  { key, locker: { counters } }: { key: string; locker: LockerContext },
  mode: 'local' | 'bypass',
): void {
  counters[mode === 'local' ? 'unshared' : 'bypasses']++
  emit(mode === 'local' ? 'unshared' : 'bypass', { key })
}

/** `close` waits for this request, which nobody else waits for. Its failure has no effect. */
export function track({ requests }: LockerContext, reply: Promise<unknown>): void {
  const forget = () => {
    requests.delete(answered)
  }
  const answered: Promise<void> = reply.then(forget, forget)
  requests.add(answered)
}

/** A locker as its flights see it. Lockers of one connection share flights; each has a context of its own. */
export interface LockerContext {
  readonly store: Store
  readonly clock: Clock
  readonly counters: Counters
  readonly cache: ResultCache | undefined
  readonly scheduler: WorkScheduler
  /** The unsettled leases, by the name of their record. */
  readonly heldLeases: TransientSetMap<string, ActiveLease>
  /** Requests under way that `close` waits for. Written by {@link track}. */
  readonly requests: TransientSet<Promise<unknown>>
  /** The held leases that are for this process alone, because Redis is unavailable. */
  readonly unshared: TransientSet<ActiveLease>
  /** Without an in-process cache: callers receive no result that an acknowledged invalidation may have preceded. */
  readonly strict: boolean
  readonly maxHold: number
  readonly takeover: boolean
  /** How long the store may take to answer, ms. */
  readonly unavailableAfter: number
  readonly ttlJitter: number
  readonly trace: (() => string | undefined) | undefined
  /** @throws ClosedError once the locker was closed. */
  readonly checkOpen: (key: string) => void
  readonly exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
}
