import type { QueueContext } from '../options.ts'
import type { AttemptRef, Delivery, WorkerRef } from '../store/store.ts'
import type { HeldAttempt, ReadyJobs } from './ready-jobs.ts'
import { attemptOf, newSecret } from './token.ts'
import type { UnansweredCalls } from './unanswered-calls.ts'

/**
 * Accepts what is delivered to the worker of takers: the store gives the job to the holder of a new token, and its payload is
 * read. What nobody takes goes back at once, uncounted.
 */
export class DeliveryAcceptor {
  readonly #worker: WorkerRef
  readonly #context: QueueContext
  readonly #ready: ReadyJobs
  readonly #unanswered: UnansweredCalls

  constructor(worker: WorkerRef, context: QueueContext, ready: ReadyJobs, unanswered: UnansweredCalls) {
    this.#worker = worker
    this.#context = context
    this.#ready = ready
    this.#unanswered = unanswered
  }

  /**
   * Accepts a delivery under a lease of `lease` ms. Resolves with undefined if the job was lost meanwhile.
   * @throws UnavailableError, OverloadedError, ClosedError: the job goes back.
   */
  async accept(delivery: Delivery, lease: number): Promise<HeldAttempt | undefined> {
    const { id, fence, options } = delivery
    const { store, within, clock } = this.#context
    const token = this.#ready.tokenOf(delivery, newSecret())
    const given = this.#refOf(delivery)
    const held = attemptOf(token)
    try {
      const renewal = await store.renew(given, Math.ceil(lease), within, held.worker)
      if (renewal !== 'held') return undefined
      const payload = delivery.payload ?? (await store.readPayload(held, within))
      if (payload !== undefined) return { token, id, fence, options, payload }
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

  /** Gives a delivery back that no taker waits for. Never rejects. */
  refuse(delivery: Delivery): Promise<void> {
    return this.#unanswered.giveBack(this.#refOf(delivery))
  }

  #refOf({ id, fence }: Delivery): AttemptRef {
    return { worker: this.#worker, id, fence }
  }
}
