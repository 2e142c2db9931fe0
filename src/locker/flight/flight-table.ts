import pDefer, { type DeferredPromise } from 'p-defer'
import { DeadlockError, OverloadedError } from '../../errors.ts'
import type { CensusMember } from '../../kernel/census.ts'
import { TransientMap, TransientSet, TransientSetMap } from '../../kernel/collections.ts'
import { emit, hasListeners } from '../../kernel/telemetry.ts'
import { AsyncContext, type Clock, Deadlines } from '../../kernel/time.ts'
import { addWait, callingWork, wouldDeadlock } from '../../kernel/work-scheduler.ts'
import type { Call, JoinedCall } from '../call.ts'
import type { BatchRun } from '../processor/work-runner.ts'
import type { Store } from '../store/store.ts'
import { Flight, type FlightListener } from './flight.ts'
import { censusOf } from './flight-census.ts'
import { lastKnown } from './stale-serving.ts'
import { type StaleResult, Waiter } from './waiter-set.ts'

/** Callers that may wait in one process at a time. */
const MAX_WAITERS = 1_000_000

/** What the cache of a locker is told. */
export interface InvalidationListener {
  /** Results of a record that were accepted up to a fence must not be served any more. */
  invalidate(record: string, fence: number): void
  /** Nor results that have this tag. */
  invalidateTag(tag: string): void
  /** Invalidations may be missed from now on. */
  onSubscriptionLost(): void
  /** Invalidations arrive again; some may have been missed. */
  onSubscribed(): void
}

/**
 * The flights of a process, by record. The lockers of one connection share them, so that a key is claimed once, whichever
 * locker is asked.
 *
 * ```
 *            join                   seal
 *   open ------------> (waiters) ----------> sealed ----> closed: forgotten
 * ```
 *
 * A flight is open while callers may join it. It is sealed when a caller that comes now could receive a result that was
 * invalidated before: when its key or one of its tags is invalidated, or when messages may be missed. A sealed flight goes on
 * for the waiters that it has.
 */
export class FlightTable implements FlightListener {
  readonly store: Store
  /** Flights that callers may join. */
  readonly #open = new TransientMap<string, Flight>()
  /** The same for callers that only wait: their flights never process. */
  readonly #waiting = new TransientMap<string, Flight>()
  /** Refreshing flights whose claim was not sent yet: only they begin after a caller of now that refreshes. */
  readonly #refreshing = new TransientMap<string, Flight>()
  /** Flights that callers must not join any more. */
  readonly #sealed = new TransientSetMap<string, Flight>()
  /** All that are not closed. */
  readonly #flights = new TransientSet<Flight>()
  readonly #listeners = new Set<InvalidationListener>()
  /** Flights whose end `drain` waits for. */
  readonly #closing = new WeakMap<Flight, DeferredPromise<void>>()
  readonly #deadlines: Deadlines
  readonly #unlisten: () => void
  readonly #stopContributing: () => void
  #waiters = 0

  constructor(store: Store, clock: Clock, census: CensusMember) {
    this.store = store
    this.#deadlines = new Deadlines(clock)
    this.#unlisten = store.listen({
      up: () => this.#onSubscribed(),
      down: () => this.#onSubscriptionLost(),
      invalidated: (record, fence) => this.invalidate(record, fence),
      tagInvalidated: (tag) => this.invalidateTag(tag),
    })
    this.#stopContributing = census.contribute('locker', ({ filter }) =>
      censusOf(this.#flights, filter, clock.now()),
    )
  }

  /** Flights that are not closed. */
  get size(): number {
    return this.#flights.size
  }

  /** Callers that wait. */
  get waiters(): number {
    return this.#waiters
  }

  /** Joins a flight of the same record, or begins one. `batch`: the keys of one `runMany` that are claimed together. */
  join(call: Call, batch?: BatchRun): Promise<unknown> {
    const { record } = call
    const waits = call.kind === 'wait'
    const table = waits ? this.#waiting : call.refresh ? this.#refreshing : this.#open
    // Redis is unavailable: a caller that accepts what the cache has does not wait for the work of this process.
    const kept = table.get(record)?.isUnshared ? lastKnown(call) : undefined
    if (kept) return Promise.resolve(call.presented(kept.result))
    if (!waits) this.#sealIfRevalidating(call)
    const found = table.get(record)
    const known = found?.suits(call) ? found : undefined
    const from = call.background ? undefined : callingWork()
    const work = from?.node
    if (
      work &&
      this.#blockers(record, waits ? undefined : known).some((flight) => wouldDeadlock(work, flight))
    ) {
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
    if (from) waiter.onEnd = addWait(from, (waits && this.#open.get(record)) || flight)
    this.#waiters++
    flight.add(waiter)
    if (known) {
      call.locker.counters.joins++
      batch?.onClaimAnswered(call.key)
      if (hasListeners('join')) emit('join', { key: call.key })
    } else {
      this.#flights.add(flight)
      if (!found) table.set(record, flight)
      if (found || call.refresh) this.#sealed.add(flight.record, flight)
      flight.begin()
    }
    return waiter.promise
  }

  /** The flights that a caller of the record would wait for: the one it joins, or those whose work runs here already. */
  #blockers(record: string, known: Flight | undefined): Flight[] {
    const sealed = this.#sealed.of(record).filter((flight) => flight.isProcessing)
    const open = known ?? this.#open.get(record)
    return open ? [open, ...sealed] : sealed
  }

  /** Begins to renew a stale result, unless a flight of its record is under way: its result is for later callers. */
  revalidate(call: Call, batch?: BatchRun): Promise<unknown> | undefined {
    return this.#open.has(call.record) ? undefined : this.join(call, batch)
  }

  /** A strict caller must ask the store itself whether the stale result that others are served is still valid. */
  #sealIfRevalidating({ record, locker, staleWhileRevalidate }: Call): void {
    const flight = this.#open.get(record)
    if (flight?.waiters.revalidationPromised && locker.strict && staleWhileRevalidate > 0)
      this.onSealed(flight)
  }

  onUnvalidated(flight: Flight, waiters: readonly Waiter[]): void {
    this.onSealed(flight)
    const [first] = waiters
    if (!first) return
    const next = new Flight(first.call, this)
    this.#flights.add(next)
    if (this.#open.has(next.record)) this.#sealed.add(next.record, next)
    else this.#open.set(next.record, next)
    for (const waiter of waiters) {
      flight.waiters.release(waiter)
      next.add(waiter)
    }
    next.begin()
  }

  onBypass(waiter: Waiter, fence: number, stale: StaleResult | undefined): void {
    const flight = new Flight(waiter.call, this)
    this.#flights.add(flight)
    this.#sealed.add(flight.record, flight)
    flight.add(waiter)
    flight.runBypassed(fence, stale)
  }

  onSent(flight: Flight): void {
    if (this.#refreshing.get(flight.record) === flight) this.#refreshing.delete(flight.record)
  }

  onClosed(flight: Flight): void {
    this.#closing.get(flight)?.resolve()
    this.#flights.delete(flight)
    this.#close(flight)
    this.onSent(flight)
    this.#sealed.delete(flight.record, flight)
  }

  onSealed(flight: Flight): void {
    if (this.#close(flight)) this.#sealed.add(flight.record, flight)
  }

  /** No caller joins the flight any more. Returns whether one could. */
  #close(flight: Flight): boolean {
    const table = [this.#open, this.#waiting].find((each) => each.get(flight.record) === flight)
    return table?.delete(flight.record) ?? false
  }

  onWaiterLeft(): void {
    this.#waiters--
  }

  /** Resolves when the flights that nobody waits for have got the reply to their last request. */
  async drain(): Promise<void> {
    const orphans = [...this.#flights].filter((flight) => flight.isOrphan)
    await Promise.all(orphans.map((flight) => this.#closed(flight)))
  }

  #closed(flight: Flight): Promise<void> {
    const closing = this.#closing.get(flight) ?? pDefer<void>()
    this.#closing.set(flight, closing)
    return closing.promise
  }

  /** Rejects the waiters of all calls for which `which` is true. */
  reject(which: (call: Call) => boolean, error: (key: string) => unknown): void {
    for (const flight of [...this.#flights]) {
      for (const waiter of flight.waiters) {
        if (which(waiter.call)) waiter.reject(error(flight.key))
      }
    }
  }

  /** The flights that callers of a record join at present. */
  current(record: string): Flight[] {
    return [this.#open.get(record), this.#waiting.get(record)].filter((flight) => flight !== undefined)
  }

  /** Results of a record that were accepted up to `fence` are not served any more. */
  invalidate(record: string, fence: number): void {
    for (const listener of this.#listeners) listener.invalidate(record, fence)
    for (const sealed of this.#sealed.of(record)) sealed.invalidateUpTo(fence)
    for (const flight of this.current(record)) if (flight.invalidateUpTo(fence)) this.onSealed(flight)
  }

  /** Results that have this tag are not served any more. */
  invalidateTag(tag: string): void {
    for (const listener of this.#listeners) listener.invalidateTag(tag)
    for (const flight of [...this.#flights]) if (flight.invalidateTag(tag)) this.onSealed(flight)
  }

  /** Adds a listener. The returned function removes it. */
  onInvalidation(listener: InvalidationListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #onSubscribed(): void {
    for (const listener of this.#listeners) listener.onSubscribed()
    for (const flight of [...this.#flights]) flight.onSubscribed()
  }

  #onSubscriptionLost(): void {
    for (const listener of this.#listeners) listener.onSubscriptionLost()
    for (const flight of [...this.#flights]) {
      flight.onSubscriptionLost()
      // Its invalidation may be missed.
      this.onSealed(flight)
    }
  }

  /** The last locker has left. */
  close(): void {
    this.#unlisten()
    this.#stopContributing()
    this.store.close()
  }
}
