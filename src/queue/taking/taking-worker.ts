import { UnavailableError } from '../../errors.ts'
import { TransientSet } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import { acceptTimeout, MAX_CONCURRENCY, type QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import type { AttemptRef, Delivery, WorkerListener, WorkerRef } from '../store/store.ts'
import { CapacityAnnouncer } from '../working/capacity-announcer.ts'
import { PendingDeliveries } from './pending-deliveries.ts'
import { type HeldAttempt, ReadyJobs } from './ready-jobs.ts'
import type { Taker } from './taker.ts'
import { attemptOf, newSecret } from './token.ts'
import type { UnansweredCalls } from './unanswered-calls.ts'
import type { RoomWorker } from './worker-room.ts'

/** What a worker of takers tells its queue. */
export interface TakingWorkerHooks {
  /** A job is due in `ms`. */
  dueIn(ms: number): void
  /** Makes ready what is due. Never rejects. */
  processDue(): Promise<void>
  /** Several announcements of the capacity in a row have failed. */
  announcementsFail(error: unknown): void
  /** A job is held for a taker. Gives it to the taker; false: it has left. */
  hand(taker: Taker, held: HeldAttempt): boolean
  /** It has no taker any more, and nothing to do. */
  onIdle(worker: TakingWorker): void
  /** Its room is needed, or nobody has taken jobs for a while. */
  onDropped(worker: TakingWorker): void
}

/** After an announcement that found no job, takers that come within so long, ms, are announced together. */
const QUIET_PAUSE = 20

/**
 * Takes the jobs of one command for all takers of this process that wait: none was ready when they asked. The capacity of this
 * worker is the number of takers that wait, so many of them cost one announcement. delivery → first taker that waits → accept by
 * the store, which gives the job to the holder of a token
 *
 * A delivery that finds no taker goes back at once: a taker has left while it was on its way. When the wait of a taker has
 * passed, its slot is withdrawn before it is told that there is no job. So a job that is submitted after that is ready for the
 * next taker, and not on its way to one that has left.
 */
export class TakingWorker implements WorkerListener, RoomWorker {
  readonly name: WorkerRef
  readonly #context: QueueContext
  readonly #hooks: TakingWorkerHooks
  readonly #announcer: CapacityAnnouncer
  readonly #unlisten: () => void
  /** Takers that wait or are leaving and that no delivery has reached, in the order in which they came. */
  #waiting = new TransientSet<Taker>()
  /** Jobs that are being accepted or given back. */
  readonly #handling = new TransientSet<Promise<void>>()
  readonly #unanswered: UnansweredCalls
  readonly #ready: ReadyJobs
  readonly #deliveries: PendingDeliveries
  /** Number of announcements that were sent. */
  #sent = 0
  /** Number of the last announcement that the store has accepted. */
  #accepted = 0
  /** When the last announcement found no job, by the clock, ms. */
  #quietSince = Number.NEGATIVE_INFINITY
  #lastFailure: unknown
  #closed = false

  /** `first`: its first taker. `unanswered`: is told of calls without a reply. */
  constructor(first: Taker, context: QueueContext, unanswered: UnansweredCalls, hooks: TakingWorkerHooks) {
    const { clock, store, options } = context
    this.name = { nonce: newId(), command: first.command }
    this.#context = context
    this.#unanswered = unanswered
    this.#hooks = hooks
    this.#ready = new ReadyJobs(first.command, context, unanswered, () => hooks.processDue())
    this.#deliveries = new PendingDeliveries(clock, acceptTimeout(options.lease), () =>
      this.#announcer.request(),
    )
    this.#unlisten = store.listen({ up: () => this.#onRestored(), down: () => {} })
    first.wait()
    this.#waiting.add(first)
    this.#announcer = new CapacityAnnouncer({
      clock,
      announce: () => this.#announce(),
      onFailing: (error) => hooks.announcementsFail(error),
    })
    // The worker was not told of jobs that were delayed before the store knew it.
    hooks.dueIn(0)
  }

  /** Number of takers that wait with slots: not those that are leaving. */
  get waiting(): number {
    return [...this.#waiting].filter(({ state }) => state === 'waiting').length
  }

  /** The worker, for a census: it has a slot for each taker that waits. */
  *census(): Generator<QueueCensusItem> {
    const { queue, options } = this.#context
    const common = { queue, prefix: options.prefix, command: this.name.command }
    yield { ...common, kind: 'worker', concurrency: this.waiting, busy: 0, takes: true }
  }

  /** Whether a taker may wait without asking: the announcement of its slot finds a job that is ready. */
  get isWaitedOn(): boolean {
    return this.#waiting.size > 0 && this.#context.store.subscribed
  }

  #handle(handling: Promise<void>): void {
    this.#handling.add(handling)
    void handling.finally(() => {
      this.#handling.delete(handling)
      this.#checkIdle()
    })
  }

  /** Gives a job to a taker that is held for it, or gives it back. */
  async #give(taker: Taker, held: HeldAttempt): Promise<void> {
    if (this.#closed) taker.close()
    if (!this.#hooks.hand(taker, held)) await this.#unanswered.giveBack(attemptOf(held.token), taker.lease)
  }

  /** Adds a taker that waits for a delivery. */
  wait(taker: Taker): void {
    taker.wait()
    this.#waiting.add(taker)
    if (this.#context.clock.now() - this.#quietSince < QUIET_PAUSE) this.#announcer.request()
    else this.#announcer.announceNow()
  }

  async #announce(): Promise<void> {
    const { store, within, clock } = this.#context
    // Jobs delivered without a subscription would be lost until their leases end. `up` announces again.
    if (!store.subscribed) throw this.#failed(new UnavailableError('Not subscribed yet'))
    const slots = this.#uncovered()
    const number = ++this.#sent
    try {
      const former = this.#deliveries.onSent()
      const assignment = await store.setCapacity(this.name, () => slots, this, within, former)
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

  /** The number of slots that takers need: those that wait, but for the first, whom deliveries will reach that are on their way. */
  #uncovered(): number {
    let uncovered = 0
    let position = 0
    for (const taker of this.#waiting)
      if (position++ >= this.#deliveries.count && taker.state === 'waiting') uncovered++
    return Math.min(uncovered, MAX_CONCURRENCY)
  }

  #failed(error: unknown): unknown {
    this.#lastFailure = error
    return error
  }

  /** Ends the takers whose slots were withdrawn, unless a delivery to them is on its way. */
  #endLeaving(): void {
    const { count } = this.#deliveries
    let position = 0
    for (const taker of this.#waiting) {
      const isCovered = position++ < count
      if (isCovered || taker.state !== 'leaving' || !this.#isWithdrawn(taker)) continue
      this.#waiting.delete(taker)
      taker.endWithoutJob()
    }
    this.#checkIdle()
  }

  /** Whether the store has accepted an announcement that leaves the slot of a taker out. */
  #isWithdrawn(taker: Taker): boolean {
    return taker.leftAt < this.#accepted
  }

  /** The time of a taker has passed. */
  onTakerLeaving(taker: Taker): void {
    taker.leftAt = this.#sent
    this.#announcer.announceNow()
  }

  /** The slot of a taker was not withdrawn in time, or a delivery to it has not arrived. */
  onTakerOverdue(taker: Taker): void {
    // A delivery is being accepted for it.
    if (!this.#waiting.has(taker)) return
    if (this.#isWithdrawn(taker)) taker.endWithoutJob()
    else taker.failUnanswered(this.#lastFailure)
  }

  /** A taker has ended. */
  onTakerLeft(taker: Taker): void {
    if (!this.#waiting.delete(taker)) return
    this.#announcer.announceNow()
    this.#checkIdle()
  }

  #onRestored(): void {
    this.#deliveries.reset()
    this.onCapacityRequested()
  }

  onCapacityRequested(): void {
    this.#announcer.request()
    this.#hooks.dueIn(0)
  }

  onDue(ms: number): void {
    this.#hooks.dueIn(ms)
  }

  /** A taken job is cancelled without a message: its holder is told at its next renewal. */
  onCancelled(): void {}

  onDelivery(delivery: Delivery): void {
    this.#quietSince = Number.NEGATIVE_INFINITY
    this.#deliveries.onArrived()
    const [taker] = this.#waiting
    if (taker) this.#waiting.delete(taker)
    this.#handle(taker ? this.#accept(taker, delivery) : this.#unanswered.giveBack(this.#refOf(delivery)))
  }

  #refOf({ id, fence }: Delivery): AttemptRef {
    return { worker: this.name, id, fence }
  }

  /** Accepts a delivery for a taker. */
  async #accept(taker: Taker, delivery: Delivery): Promise<void> {
    const { id, fence, options } = delivery
    const token = this.#ready.tokenOf(delivery, newSecret())
    try {
      const payload = await this.#hold(delivery, attemptOf(token), taker.lease)
      if (payload === undefined) this.#waitAgain(taker)
      else await this.#give(taker, { token, id, fence, options, payload })
    } catch (error) {
      this.#waitAgain(taker, error)
    }
  }

  /**
   * Accepts a delivery, and gives it to its holder. Returns the payload; undefined if it was lost. Rejects if the store does not
   * answer.
   */
  async #hold(delivery: Delivery, held: AttemptRef, lease: number): Promise<string | undefined> {
    const { store, within, clock } = this.#context
    const given = this.#refOf(delivery)
    try {
      const renewal = await store.renew(given, Math.ceil(lease), within, held.worker)
      if (renewal !== 'held') return undefined
      const payload = delivery.payload ?? (await store.readPayload(held, within))
      if (payload !== undefined) return payload
    } catch (error) {
      // It is not known who holds it.
      await Promise.all([this.#unanswered.giveBack(given), this.#unanswered.giveBack(held)])
      // The acceptance may be run later.
      await this.#unanswered.add({ attempt: held, lease }, clock.now())
      throw error
    }
    await this.#unanswered.giveBack(held, lease)
    return undefined
  }

  /** Puts a taker back in its place, whose job could not be had. One that is leaving has no slot any more: the delivery used it. */
  #waitAgain(taker: Taker, failure?: unknown): void {
    if (taker.state === 'ended') return
    if (this.#closed) return taker.close()
    if (taker.state === 'leaving')
      return failure === undefined ? taker.endWithoutJob() : taker.failUnanswered(failure)
    const others = [...this.#waiting]
    this.#waiting = new TransientSet()
    for (const one of [taker, ...others]) this.#waiting.add(one)
    this.#announcer.announceNow()
  }

  #checkIdle(): void {
    const isUsed = this.#waiting.size + this.#handling.size > 0
    if (!isUsed && !this.#closed) this.#hooks.onIdle(this)
  }

  drop(): void {
    this.#hooks.onDropped(this)
  }

  /** Takes no more jobs: the takers are rejected, and what is delivered goes back. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true
    this.#deliveries.stop()
    this.#announcer.stop()
    this.#unlisten()
    for (const taker of [...this.#waiting]) taker.close()
    const { store, within } = this.#context
    await store.removeWorker(this.name, within).catch(() => {})
    await Promise.all([...this.#handling])
    store.unregister(this.name.nonce)
  }
}
