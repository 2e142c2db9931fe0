import { DeadlockError, OverloadedError } from '../../errors.ts'
import { TransientMap, TransientSet } from '../../kernel/collections.ts'
import { emit, hasListeners } from '../../kernel/telemetry.ts'
import { AsyncContext, type Clock, Deadlines } from '../../kernel/time.ts'
import type { Call, JoinedCall } from '../call.ts'
import type { BatchRun } from '../processor/batch-run.ts'
import { addWait, callingWork, wouldDeadlock } from '../processor/work-runner.ts'
import type { Store } from '../store/store.ts'
import { Flight, type FlightEvents } from './flight.ts'
import { requiresShared, serveLastKnown } from './unavailable.ts'
import { Waiter } from './waiter.ts'
import type { StaleResult } from './waiter-set.ts'

/** Callers that may wait in one process at a time. */
const MAX_WAITERS = 1_000_000

/** What an in-process cache must know. */
export interface InvalidationListener {
  /** What was accepted for a record up to a fence is no longer to be served. */
  drop(record: string, fence: number): void
  /** Nor what has this tag. */
  dropTag(tag: string): void
  /** What is dropped may go unheard from now on. */
  unverify(): void
  /** It is heard again. */
  verify(): void
}

/**
 * The flights of a process, by record: the lockers of one connection share them, so that one key is claimed once,
 * whichever of them is asked.
 */
export class FlightTable implements FlightEvents {
  readonly store: Store
  /** Flights that a caller may join. */
  readonly #open = new TransientMap<string, Flight>()
  /** Refreshing flights whose claim has not gone out: what they bring will be newer than a caller of now. */
  readonly #refreshing = new TransientMap<string, Flight>()
  /** Flights that go on without being joined. */
  readonly #sealed = new TransientMap<string, Set<Flight>>()
  /** All that are not over. */
  readonly #flights = new TransientSet<Flight>()
  readonly #operations = new TransientSet<Promise<unknown>>()
  readonly #listeners = new Set<InvalidationListener>()
  readonly #deadlines: Deadlines
  readonly #unlisten: () => void
  #waiters = 0
  tagDrops = 0

  constructor(store: Store, clock: Clock) {
    this.store = store
    this.#deadlines = new Deadlines(clock)
    this.#unlisten = store.listen({
      up: () => this.#onSubscribed(),
      down: () => this.#onSubscriptionLost(),
      invalidated: (record, fence) => this.drop(record, fence),
      tagInvalidated: (tag) => this.dropTag(tag),
    })
  }

  get size(): number {
    return this.#flights.size
  }

  get waiters(): number {
    return this.#waiters
  }

  /** Waits with the callers of the same record, or begins a flight. */
  join(call: Call, batch?: BatchRun): Promise<unknown> {
    const { record } = call
    const table = call.refresh ? this.#refreshing : this.#open
    // Redis is away: nobody waits for a work of this process who would have what is there.
    const kept = table.get(record)?.isUnshared ? serveLastKnown(call) : undefined
    if (kept) return Promise.resolve(call.work ? kept.result : { status: 'done', result: kept.result })
    this.#sealIfRevalidating(call)
    const found = table.get(record)
    // Who would rather fail than have a result of this process alone does not wait for one.
    const alone = found?.isUnshared && requiresShared(call)
    // Nor who needs what is newer than it may bring, or would keep it under other tags.
    const other = found && !(found.mayYieldAbove(call.afterFence) && found.hasTags(call.tags))
    const known = alone || other ? undefined : found
    const from = call.background ? undefined : callingWork()
    const work = from?.node
    if (work && this.#blockers(record, known).some((flight) => wouldDeadlock(work, flight))) {
      const message = 'The work waits for itself: it asks for the key that it computes'
      return Promise.reject(new DeadlockError(message, { key: call.key }))
    }
    if (this.#waiters >= MAX_WAITERS) {
      return Promise.reject(new OverloadedError(`${MAX_WAITERS} callers wait already`, { key: call.key }))
    }
    call.context = batch?.context ?? new AsyncContext()
    const joined = call as JoinedCall
    const flight = known ?? new Flight(joined, this)
    const waiter = new Waiter(joined, this.#deadlines, batch)
    if (from) waiter.onEnd = addWait(from, flight)
    this.#waiters++
    flight.add(waiter)
    if (known) {
      call.locker.counters.joins++
      batch?.onClaimSettled(call.key)
      if (hasListeners('join')) emit('join', { key: call.key })
    } else {
      this.#flights.add(flight)
      if (!found) table.set(record, flight)
      if (found || call.refresh) this.#addSealed(flight)
      flight.begin()
    }
    return waiter.promise
  }

  /** The flights that a caller of the record would wait for: the one it joins, or those that compute it here already. */
  #blockers(record: string, known: Flight | undefined): Flight[] {
    const sealed = [...(this.#sealed.get(record) ?? [])].filter((flight) => flight.isProcessing)
    const open = known ?? this.#open.get(record)
    return open ? [open, ...sealed] : sealed
  }

  /** Begins to renew what is over, unless that is under way. What comes of it is for those who ask later. */
  revalidate(call: Call, batch?: BatchRun): Promise<unknown> | undefined {
    return this.#open.has(call.record) ? undefined : this.join(call, batch)
  }

  /** A strict caller that would be content with what is over must ask for itself whether it may have that. */
  #sealIfRevalidating({ record, locker, staleWhileRevalidate }: Call): void {
    const flight = this.#open.get(record)
    if (flight?.isRevalidating && locker.strict && staleWhileRevalidate > 0) this.seal(flight)
  }

  moveToNewFlight(flight: Flight, waiters: readonly Waiter[]): void {
    this.seal(flight)
    const [first] = waiters
    if (!first) return
    const next = new Flight(first.call, this)
    this.#flights.add(next)
    if (this.#open.has(next.record)) this.#addSealed(next)
    else this.#open.set(next.record, next)
    for (const waiter of waiters) {
      flight.waiters.release(waiter)
      next.add(waiter)
    }
    next.begin()
  }

  bypass(waiter: Waiter, fence: number, stale: StaleResult | undefined): void {
    const flight = new Flight(waiter.call, this)
    this.#flights.add(flight)
    this.#addSealed(flight)
    flight.runBypassed(waiter, fence, stale)
  }

  onClaimSent(flight: Flight): void {
    if (this.#refreshing.get(flight.record) === flight) this.#refreshing.delete(flight.record)
  }

  onClosed(flight: Flight): void {
    this.#flights.delete(flight)
    if (this.#open.get(flight.record) === flight) this.#open.delete(flight.record)
    this.onClaimSent(flight)
    const sealed = this.#sealed.get(flight.record)
    if (sealed?.delete(flight) && sealed.size === 0) this.#sealed.delete(flight.record)
  }

  seal(flight: Flight): void {
    if (this.#open.get(flight.record) !== flight) return
    this.#open.delete(flight.record)
    this.#addSealed(flight)
  }

  #addSealed(flight: Flight): void {
    const sealed = this.#sealed.get(flight.record)
    if (sealed) sealed.add(flight)
    else this.#sealed.set(flight.record, new Set([flight]))
  }

  onWaiterLeft(): void {
    this.#waiters--
  }

  track(operation: Promise<unknown>): void {
    this.#operations.add(operation)
    void operation.finally(() => this.#operations.delete(operation))
  }

  /** Resolves when no flight is left that nobody waits for, and what was given back is answered. */
  async drain(): Promise<void> {
    const orphans = [...this.#flights].filter((flight) => flight.isOrphanClaim)
    await Promise.all(orphans.map((flight) => flight.closed()))
    await Promise.all(this.#operations)
  }

  /** Rejects all waiters that `which` names. */
  reject(which: (call: Call) => boolean, error: (key: string) => unknown): void {
    for (const flight of [...this.#flights]) {
      for (const waiter of flight.waiters) {
        if (which(waiter.call)) waiter.reject(error(flight.key))
      }
    }
  }

  /** The flight that callers of a record join at present. */
  current(record: string): Flight | undefined {
    return this.#open.get(record)
  }

  /** What was accepted up to `fence` is no longer to be served. */
  drop(record: string, fence: number): void {
    for (const listener of this.#listeners) listener.drop(record, fence)
    for (const sealed of this.#sealed.get(record) ?? []) sealed.invalidateUpTo(fence)
    const flight = this.#open.get(record)
    if (flight?.invalidateUpTo(fence)) this.seal(flight)
  }

  /** A tag has begun a new epoch. */
  dropTag(tag: string): void {
    this.tagDrops++
    for (const listener of this.#listeners) listener.dropTag(tag)
    for (const flight of [...this.#flights]) if (flight.invalidateTag(tag)) this.seal(flight)
  }

  /** Adds a listener; the returned function takes it away. */
  onInvalidation(listener: InvalidationListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #onSubscribed(): void {
    for (const listener of this.#listeners) listener.verify()
    for (const flight of [...this.#flights]) flight.poll()
  }

  #onSubscriptionLost(): void {
    for (const listener of this.#listeners) listener.unverify()
    for (const flight of [...this.#flights]) {
      flight.onSubscriptionLost()
      // What invalidates it may go unheard.
      this.seal(flight)
    }
  }

  /** Nobody uses them any more. */
  close(): void {
    this.#unlisten()
    this.store.close()
  }
}
