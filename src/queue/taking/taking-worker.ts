import { TransientSet } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import type { QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import type { Delivery, WorkerListener, WorkerRef } from '../store/store.ts'
import { DeliveryAcceptor } from './delivery-acceptor.ts'
import { type HeldAttempt, ReadyJobs } from './ready-jobs.ts'
import type { Taker } from './taker.ts'
import { attemptOf } from './token.ts'
import type { UnansweredCalls } from './unanswered-calls.ts'
import { WaitingTakers } from './waiting-takers.ts'
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

/**
 * Takes the jobs of one command for all takers of this process that wait: none was ready when they asked. They wait in line
 * ({@link WaitingTakers}); a delivery is for the first in line, and accepted for it ({@link DeliveryAcceptor}). A delivery that
 * finds no taker goes back at once: a taker has left while it was on its way.
 */
export class TakingWorker implements WorkerListener, RoomWorker {
  readonly name: WorkerRef
  readonly #context: QueueContext
  readonly #hooks: TakingWorkerHooks
  readonly #unlisten: () => void
  readonly #unanswered: UnansweredCalls
  readonly #acceptor: DeliveryAcceptor
  readonly #waiting: WaitingTakers
  /** Takers that are not in line: for which a delivery is being accepted. */
  readonly #served = new TransientSet<Taker>()
  /** Jobs that are being accepted or given back. */
  readonly #handling = new TransientSet<Promise<void>>()
  #closed = false

  /** `first`: its first taker. `unanswered`: is told of calls without a reply. */
  constructor(first: Taker, context: QueueContext, unanswered: UnansweredCalls, hooks: TakingWorkerHooks) {
    const { store, within } = context
    this.name = { nonce: newId(), command: first.command }
    this.#context = context
    this.#hooks = hooks
    this.#unanswered = unanswered
    const ready = new ReadyJobs(first.command, context, unanswered, () => hooks.processDue())
    this.#acceptor = new DeliveryAcceptor(this.name, context, ready, unanswered)
    this.#unlisten = store.listen({ up: () => this.#onRestored(), down: () => {} })
    this.#waiting = new WaitingTakers(first, context, {
      setCapacity: (slots, former) => store.setCapacity(this.name, () => slots, this, within, former),
      onFailing: (error) => hooks.announcementsFail(error),
    })
    // The worker was not told of jobs that were delayed before the store knew it.
    hooks.dueIn(0)
  }

  /** Number of takers that wait with slots: not those that are leaving. */
  get waiting(): number {
    return this.#waiting.slots
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

  /** Adds a taker that waits for a delivery. */
  wait(taker: Taker): void {
    this.#waiting.add(taker)
  }

  onDelivery(delivery: Delivery): void {
    const taker = this.#waiting.onDelivery()
    this.#handle(taker ? this.#accept(taker, delivery) : this.#acceptor.refuse(delivery))
  }

  #handle(handling: Promise<void>): void {
    this.#handling.add(handling)
    void handling.finally(() => {
      this.#handling.delete(handling)
      this.#checkIdle()
    })
  }

  /** Accepts a delivery for a taker. Never rejects. */
  async #accept(taker: Taker, delivery: Delivery): Promise<void> {
    this.#served.add(taker)
    try {
      const held = await this.#acceptor.accept(delivery, taker.lease)
      if (!held) this.#waiting.putBack(taker)
      else if (!this.#hooks.hand(taker, held))
        await this.#unanswered.giveBack(attemptOf(held.token), taker.lease)
    } catch (error) {
      this.#waiting.putBack(taker, error)
    } finally {
      this.#served.delete(taker)
    }
  }

  /** The time of a taker has passed. */
  onTakerLeaving(taker: Taker): void {
    this.#waiting.onLeaving(taker)
  }

  /** The slot of a taker was not withdrawn in time, or a delivery to it has not arrived. */
  onTakerOverdue(taker: Taker): void {
    this.#waiting.onOverdue(taker)
  }

  /** A taker has ended. */
  onTakerLeft(taker: Taker): void {
    this.#waiting.onLeft(taker)
    this.#checkIdle()
  }

  #onRestored(): void {
    this.#waiting.onRestored()
    this.onCapacityRequested()
  }

  onCapacityRequested(): void {
    this.#waiting.announceSoon()
    this.#hooks.dueIn(0)
  }

  onDue(ms: number): void {
    this.#hooks.dueIn(ms)
  }

  /** A taken job is cancelled without a message: its holder is told at its next renewal. */
  onCancelled(): void {}

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
    this.#waiting.stop()
    this.#unlisten()
    for (const taker of [...this.#waiting, ...this.#served]) taker.close()
    const { store, within } = this.#context
    await store.removeWorker(this.name, within).catch(() => {})
    await Promise.all([...this.#handling])
    store.unregister(this.name.nonce)
  }
}
