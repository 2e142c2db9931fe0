import type { RemoteFailure, SoloflightError } from '../errors.ts'
import { TransientMap, type TransientSet } from '../kernel/collections.ts'
import type { Clock } from '../kernel/event-loop.ts'
import { emit } from '../kernel/telemetry.ts'
import type { WorkScheduler } from '../kernel/work-scheduler.ts'
import type { ResultCache } from './cache/result-cache.ts'
import type { Store } from './store/store.ts'

/** Counts of what a locker did, since it was made. */
export interface Counters {
  /** Results served out of the store. */
  hits: number
  /** Callers that joined a flight of this process. */
  joins: number
  /** Grants received. */
  grants: number
  /** Grants received from a holder whose lease had run out. */
  takeovers: number
  /** Times that a flight parked behind another process. */
  parks: number
  /** Works that have ended, and how many of them failed. */
  works: number
  failures: number
  /** Results and failures that the store accepted. */
  settled: number
  /** Leases lost. */
  lost: number
  /** Waiters that left at their deadline, and by their signal. */
  timeouts: number
  aborts: number
  /** Results served although they were over, and works that ran beside others because nobody waited for anybody. */
  stale: number
  bypasses: number
  /** Stored values that the codec could not read, each computed anew instead. */
  undecodable: number
  /** Results served out of this process's cache while Redis was away. */
  unverified: number
  /** Claims that failed because Redis was away, and works that ran for this process alone because of it. */
  unavailable: number
  unshared: number
}

export function newCounters(): Counters {
  return {
    hits: 0,
    joins: 0,
    grants: 0,
    takeovers: 0,
    parks: 0,
    works: 0,
    failures: 0,
    settled: 0,
    lost: 0,
    timeouts: 0,
    aborts: 0,
    stale: 0,
    bypasses: 0,
    undecodable: 0,
    unverified: 0,
    unavailable: 0,
    unshared: 0,
  }
}

/** A stored value could not be read: another codec wrote it. It counts as a miss. */
export function countUndecodable(counters: Counters, key: string, fence: number): void {
  counters.undecodable++
  emit('undecodable', { key, fence })
}

/** A lease in the hands of a locker, as the locker itself uses it. The port of processor/held-lease.ts. */
export interface ActiveLease {
  /** Its flight has gone on without it. */
  readonly isLost: boolean
  /** See `Lease.publish`. */
  publish(value: unknown, ttl?: number): Promise<void>
  /** Aborts the work and releases the lease. Never rejects. */
  cancelAndRelease(reason: SoloflightError): Promise<void>
}

/** The unsettled leases of a locker, by the name of their record. */
export class LeaseRegistry {
  readonly #leases = new TransientMap<string, Set<ActiveLease>>()

  add(record: string, lease: ActiveLease): void {
    const leases = this.#leases.get(record)
    if (leases) leases.add(lease)
    else this.#leases.set(record, new Set([lease]))
  }

  delete(record: string, lease: ActiveLease): void {
    const leases = this.#leases.get(record)
    if (leases?.delete(lease) && leases.size === 0) this.#leases.delete(record)
  }

  of(record: string): ActiveLease[] {
    return [...(this.#leases.get(record) ?? [])]
  }

  all(): ActiveLease[] {
    return [...this.#leases.values()].flatMap((leases) => [...leases])
  }
}

/** A locker as its flights see it: flights are shared by the lockers of a connection, these things are not. */
export interface LockerContext {
  readonly store: Store
  readonly clock: Clock
  readonly counters: Counters
  readonly cache: ResultCache | undefined
  readonly scheduler: WorkScheduler
  readonly heldLeases: LeaseRegistry
  /** Those of them that are for this process alone, because Redis is away. */
  readonly unshared: TransientSet<ActiveLease>
  /** No in-process cache: nothing that an acknowledged invalidation might have preceded is handed over. */
  readonly strict: boolean
  readonly maxHold: number
  readonly takeover: boolean
  readonly unavailableAfter: number
  readonly ttlJitter: number
  readonly trace: (() => string | undefined) | undefined
  readonly exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
}
