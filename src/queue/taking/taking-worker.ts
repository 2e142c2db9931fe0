import { UnavailableError } from '../../errors.ts'
import { TransientSet } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import type { Timer } from '../../kernel/time.ts'
import type { QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import type { Delivery, WorkerListener, WorkerRef } from '../store/store.ts'
import { DeliveryAcceptor } from './delivery-acceptor.ts'
import { type HeldAttempt, ReadyJobs } from './ready-jobs.ts'
import type { Taker } from './taker.ts'
import { attemptOf } from './token.ts'
import { UnansweredCalls } from './unanswered-calls.ts'
import { WaitingTakers } from './waiting-takers.ts'

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
  /** Nobody has taken jobs for a while. */
  onIdle(worker: TakingWorker): void
}

/** The worker is removed when it has had no taker for so long, ms. Most takers come again at once. */
const IDLE_TIMEOUT = 60_000

/**
 * Takes the jobs of one command for all takers of this process.
 *
 * 1. A taker asks the store for a job that is ready: {@link ReadyJobs}. Those of one turn are one call.
 * 2. If there is none, it waits in line: {@link WaitingTakers}. A delivery is for the first in line, and accepted for it:
 *    {@link DeliveryAcceptor}.
 *
 * A delivery that finds no taker goes back at once: a taker has left while it was on its way.
 */
export class TakingWorker implements WorkerListener {
  readonly name: WorkerRef
  readonly #context: QueueContext
  readonly #hooks: TakingWorkerHooks
  readonly #unlisten: () => void
  readonly #unanswered: UnansweredCalls
  readonly #ready: ReadyJobs
  readonly #acceptor: DeliveryAcceptor
  readonly #waiting: WaitingTakers
  /** Takers that are not in line: that ask for a job that is ready, or for which a delivery is being accepted. */
  readonly #served = new TransientSet<Taker>()
  /** Jobs that are being asked for, accepted or given back. */
  readonly #handling = new TransientSet<Promise<void>>()
  #usedAt: number
  #idleTimer: Timer | undefined

  constructor(command: string, context: QueueContext, hooks: TakingWorkerHooks) {
    const { clock, store, within } = context
    this.name = { nonce: newId(), command }
    this.#context = context
    this.#hooks = hooks
    this.#usedAt = clock.now()
    this.#unanswered = new UnansweredCalls(context)
    this.#ready = new ReadyJobs(command, context, this.#unanswered, () => hooks.processDue())
    this.#acceptor = new DeliveryAcceptor(this.name, context, this.#ready, this.#unanswered)
    this.#unlisten = store.listen({ up: () => this.#onRestored(), down: () => {} })
    this.#waiting = new WaitingTakers(context, {
      setCapacity: (slots, former) => store.setCapacity(this.name, slots, this, within, former),
      onFailing: (error) => hooks.announcementsFail(error),
    })
    // The worker was not told of jobs that were delayed before the store knew it.
    hooks.dueIn(0)
    this.#checkIdleLater()
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

  /** Takes a job for a taker, now or later. */
  take(taker: Taker): void {
    this.#usedAt = this.#context.clock.now()
    // While others wait, it waits too: the announcement of its slot finds a job that is ready.
    const { subscribed } = this.#context.store
    if (taker.hasTime && this.#waiting.size > 0 && subscribed) this.#waiting.add(taker)
    else this.#handle(this.#ask(taker))
  }

  #handle(handling: Promise<void>): void {
    this.#handling.add(handling)
    void handling.finally(() => this.#handling.delete(handling))
  }

  /** Asks for a job that is ready. Never rejects. */
  async #ask(taker: Taker): Promise<void> {
    this.#served.add(taker)
    try {
      const held = await this.#ready.take(taker.lease)
      if (held) await this.#give(taker, held)
      else this.#waitOrEnd(taker)
    } catch (error) {
      if (!(error instanceof UnavailableError)) taker.reject(error)
      else if (taker.hasTime) this.#waitOrEnd(taker)
      else taker.failUnanswered(error)
    } finally {
      this.#served.delete(taker)
    }
  }

  #waitOrEnd(taker: Taker): void {
    if (taker.state === 'ended') return
    if (taker.hasTime) this.#waiting.add(taker)
    else taker.endWithoutJob()
  }

  /** Gives a job to a taker that is held for it, or gives it back. */
  async #give(taker: Taker, held: HeldAttempt): Promise<void> {
    if (!this.#hooks.hand(taker, held)) await this.#acceptor.giveBack(attemptOf(held.token), taker.lease)
  }

  onDelivery(delivery: Delivery): void {
    const taker = this.#waiting.onDelivery()
    this.#handle(taker ? this.#accept(taker, delivery) : this.#acceptor.refuse(delivery))
  }

  /** Accepts a delivery for a taker. Never rejects. */
  async #accept(taker: Taker, delivery: Delivery): Promise<void> {
    this.#served.add(taker)
    try {
      const held = await this.#acceptor.accept(delivery, taker.lease)
      if (held) await this.#give(taker, held)
      else this.#waiting.putBack(taker)
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
    this.#usedAt = this.#context.clock.now()
    this.#waiting.onLeft(taker)
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

  #checkIdleLater(): void {
    const { clock } = this.#context
    this.#idleTimer = clock.after(
      IDLE_TIMEOUT,
      () => {
        // A taker whose job is being asked for or accepted does not wait, and has no job yet.
        const isUsed = this.#waiting.size + this.#handling.size + this.#unanswered.size > 0
        if (isUsed || clock.now() - this.#usedAt < IDLE_TIMEOUT) this.#checkIdleLater()
        else this.#hooks.onIdle(this)
      },
      true,
    )
  }

  /** Takes no more jobs: the takers are rejected, and what is delivered goes back. Never rejects. */
  async close(): Promise<void> {
    this.#idleTimer?.cancel()
    const searching = this.#unanswered.close()
    this.#waiting.stop()
    this.#unlisten()
    for (const taker of [...this.#waiting, ...this.#served]) taker.close()
    const { store, within } = this.#context
    await store.removeWorker(this.name, within).catch(() => {})
    await Promise.all([searching, ...this.#handling])
    store.unregister(this.name.nonce)
  }
}
