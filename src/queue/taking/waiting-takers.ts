import { UnavailableError } from '../../errors.ts'
import { TransientSet } from '../../kernel/collections.ts'
import { acceptTimeout, MAX_CONCURRENCY, type QueueContext } from '../options.ts'
import type { Assignment } from '../store/store.ts'
import { CapacityAnnouncer } from '../working/capacity-announcer.ts'
import { PendingDeliveries } from './pending-deliveries.ts'
import type { Taker } from './taker.ts'

/** After an announcement that found no job, takers that come within so long, ms, are announced together. */
const QUIET_PAUSE = 20

/** What waiting takers need of their worker. */
export interface WaitingTakersDeps {
  /** Tells the store how many slots the worker has. `former`: those that are left of the announcement before, if that is known. */
  setCapacity(slots: number, former: number | undefined): Promise<Assignment>
  /** Several announcements in a row have failed. */
  onFailing(error: unknown): void
}

/**
 * The takers of one command that wait, in line: deliveries reach them in the order in which they came. Each has a slot, and the
 * capacity that is announced to the store is the number of slots, so many takers cost one announcement.
 *
 * A taker whose wait has passed stays in line until the store has accepted an announcement without its slot. So a job that is
 * submitted after it was told that there is none is ready for the next taker, and not on its way to one that has left.
 */
export class WaitingTakers {
  readonly #context: QueueContext
  readonly #deps: WaitingTakersDeps
  readonly #announcer: CapacityAnnouncer
  readonly #deliveries: PendingDeliveries
  /** Takers that wait or are leaving and that no delivery has reached, in line. */
  #line = new TransientSet<Taker>()
  /** Number of announcements that were sent. */
  #sent = 0
  /** Number of the last announcement that the store has accepted. */
  #accepted = 0
  /** When the last announcement found no job, by the clock, ms. */
  #quietSince = Number.NEGATIVE_INFINITY
  /** Why the last announcement has failed; undefined: it has not. */
  #lastFailure: unknown

  /** `first`: the first in line. */
  constructor(first: Taker, context: QueueContext, deps: WaitingTakersDeps) {
    const { clock, options } = context
    this.#context = context
    this.#deps = deps
    this.#deliveries = new PendingDeliveries(clock, acceptTimeout(options.lease), () => this.announceSoon())
    first.wait()
    this.#line.add(first)
    this.#announcer = new CapacityAnnouncer({
      clock,
      announce: () => this.#announce(),
      onFailing: (error) => deps.onFailing(error),
    })
  }

  /** Number of takers in line, with those that are leaving. */
  get size(): number {
    return this.#line.size
  }

  /** Number of takers that have a slot: not those that are leaving. */
  get slots(): number {
    return [...this.#line].filter(({ state }) => state === 'waiting').length
  }

  [Symbol.iterator](): Iterator<Taker> {
    return this.#line[Symbol.iterator]()
  }

  /** A taker waits from now on. */
  add(taker: Taker): void {
    taker.wait()
    this.#line.add(taker)
    if (this.#context.clock.now() - this.#quietSince < QUIET_PAUSE) this.announceSoon()
    else this.#announcer.announceNow()
  }

  /** A delivery has arrived. Returns the taker that it is for, which is in line no more; undefined: that one has left. */
  onDelivery(): Taker | undefined {
    this.#quietSince = Number.NEGATIVE_INFINITY
    this.#deliveries.onArrived()
    const [taker] = this.#line
    if (taker) this.#line.delete(taker)
    return taker
  }

  /** Puts a taker back in its place, whose job could not be had. One that is leaving has no slot any more: the delivery used it. */
  putBack(taker: Taker, failure?: unknown): void {
    if (taker.state === 'ended') return
    if (taker.state === 'leaving')
      return failure === undefined ? taker.endWithoutJob() : taker.failUnanswered(failure)
    const others = [...this.#line]
    this.#line = new TransientSet()
    for (const one of [taker, ...others]) this.#line.add(one)
    this.#announcer.announceNow()
  }

  /** The wait of a taker has passed: its slot is withdrawn. */
  onLeaving(taker: Taker): void {
    taker.leftAt = this.#sent
    this.#announcer.announceNow()
  }

  /** The slot of a taker was not withdrawn in time, or a delivery to it has not arrived. */
  onOverdue(taker: Taker): void {
    // A delivery is being accepted for it.
    if (!this.#line.has(taker)) return
    if (this.#isWithdrawn(taker)) taker.endWithoutJob()
    else taker.failUnanswered(this.#lastFailure)
  }

  /** A taker has ended. */
  onLeft(taker: Taker): void {
    if (this.#line.delete(taker)) this.#announcer.announceNow()
  }

  /** The subscription is back: deliveries may have been lost. */
  onRestored(): void {
    this.#deliveries.reset()
  }

  /** The store may not know the capacity: announces it soon. */
  announceSoon(): void {
    this.#announcer.request()
  }

  async #announce(): Promise<void> {
    const { store, clock } = this.#context
    // Jobs delivered without a subscription would be lost until their leases end. `up` announces again.
    if (!store.subscribed) throw this.#failed(new UnavailableError('Not subscribed yet'))
    const slots = this.#uncovered()
    const number = ++this.#sent
    try {
      const assignment = await this.#deps.setCapacity(slots, this.#deliveries.onSent())
      this.#deliveries.onAnnounced(slots, assignment)
      this.#quietSince = assignment.assigned === 0 ? clock.now() : Number.NEGATIVE_INFINITY
      this.#lastFailure = undefined
      this.#accepted = Math.max(this.#accepted, number)
      this.#endLeaving()
      if (assignment.more) this.#announcer.announceNow()
    } catch (error) {
      this.#deliveries.onFailed()
      throw this.#failed(error)
    }
  }

  #failed(error: unknown): unknown {
    this.#lastFailure = error
    return error
  }

  /** The number of slots that takers need: those that wait, but for the first, whom deliveries will reach that are on their way. */
  #uncovered(): number {
    let uncovered = 0
    let position = 0
    for (const taker of this.#line)
      if (position++ >= this.#deliveries.count && taker.state === 'waiting') uncovered++
    return Math.min(uncovered, MAX_CONCURRENCY)
  }

  /** Ends the takers whose slots were withdrawn, unless a delivery to them is on its way. */
  #endLeaving(): void {
    const { count } = this.#deliveries
    let position = 0
    for (const taker of this.#line) {
      const isCovered = position++ < count
      if (isCovered || taker.state !== 'leaving' || !this.#isWithdrawn(taker)) continue
      this.#line.delete(taker)
      taker.endWithoutJob()
    }
  }

  /** Whether the store has accepted an announcement that leaves the slot of a taker out. */
  #isWithdrawn(taker: Taker): boolean {
    return taker.leftAt < this.#accepted
  }

  /** Announces no more. The takers stay in line. */
  stop(): void {
    this.#deliveries.stop()
    this.#announcer.stop()
  }
}
