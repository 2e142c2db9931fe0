import { UnavailableError } from '../../errors.ts'
import { TransientSet } from '../../kernel/collections.ts'
import type { QueueContext } from '../options.ts'
import { type HeldAttempt, ReadyJobs } from './ready-jobs.ts'
import type { Taker } from './taker.ts'
import { attemptOf } from './token.ts'
import type { UnansweredCalls } from './unanswered-calls.ts'

/** What takers that ask tell their queue. */
export interface AskingTakersHooks {
  /** Makes ready what is due. Never rejects. */
  processDue(): Promise<void>
  /** A job is held for a taker. Gives it to the taker; false: it has left. */
  hand(taker: Taker, held: HeldAttempt): boolean
  /** No job is ready for a taker that may wait. */
  wait(taker: Taker): void
}

/**
 * Takers of a queue that ask for a job that is ready, of whichever commands. Those of one turn are one call. Nothing is left of
 * a taker that has got its answer: a command that is only asked for costs no worker.
 */
export class AskingTakers {
  readonly #context: QueueContext
  readonly #unanswered: UnansweredCalls
  readonly #hooks: AskingTakersHooks
  readonly #asking = new TransientSet<Taker>()
  /** Jobs that are being asked for, or given back. */
  readonly #handling = new TransientSet<Promise<void>>()

  /** `unanswered`: is told of calls without a reply. */
  constructor(context: QueueContext, unanswered: UnansweredCalls, hooks: AskingTakersHooks) {
    this.#context = context
    this.#unanswered = unanswered
    this.#hooks = hooks
  }

  /** Takes a job for a taker, if one is ready. */
  ask(taker: Taker): void {
    const handling = this.#ask(taker)
    this.#handling.add(handling)
    void handling.finally(() => this.#handling.delete(handling))
  }

  /** Never rejects. */
  async #ask(taker: Taker): Promise<void> {
    const ready = new ReadyJobs(taker.command, this.#context, this.#unanswered, () =>
      this.#hooks.processDue(),
    )
    this.#asking.add(taker)
    try {
      const held = await ready.take(taker.lease)
      this.#asking.delete(taker)
      if (held) await this.#give(taker, held)
      else this.#waitOrEnd(taker)
    } catch (error) {
      this.#asking.delete(taker)
      if (!(error instanceof UnavailableError)) taker.reject(error)
      else if (taker.hasTime) this.#waitOrEnd(taker)
      else taker.failUnanswered(error)
    }
  }

  /** Gives a taker the job that is held for it. If the taker has left, the job goes back. */
  async #give(taker: Taker, held: HeldAttempt): Promise<void> {
    if (!this.#hooks.hand(taker, held)) await this.#unanswered.giveBack(attemptOf(held.token), taker.lease)
  }

  #waitOrEnd(taker: Taker): void {
    if (taker.state === 'ended') return
    if (taker.hasTime) this.#hooks.wait(taker)
    else taker.endWithoutJob()
  }

  /** Rejects the takers. What they are given goes back. Never rejects. */
  async close(): Promise<void> {
    for (const taker of [...this.#asking]) taker.close()
    await Promise.all([...this.#handling])
  }
}
