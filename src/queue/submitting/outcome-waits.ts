import type { Codec } from '../../kernel/codec/codec.ts'
import { encodeFailure } from '../../kernel/codec/failure.ts'
import { TransientMap, TransientSet } from '../../kernel/collections.ts'
import type { Clock } from '../../kernel/event-loop.ts'
import { newId } from '../../kernel/keys.ts'
import type { CallLimits } from '../../kernel/limits.ts'
import { Deadlines } from '../../kernel/waiter.ts'
import type { Disposition } from '../events/events.ts'
import type { QueueStore, Submission, Termination } from '../store/store.ts'
import type { JobWaiter } from './job-waiter.ts'
import { OutcomeWait, type OutcomeWaitDeps } from './outcome-wait.ts'

/** A wait queries the outcome after so long without a message, ms: a message may have been lost. */
export const OUTCOME_POLL_INTERVAL = 5_000

/** An outcome stays readable for at least so long, ms, whatever its ttl: for waiters whose message was lost. */
export const OUTCOME_RETENTION = 15_000

/** The failure of a cancelled job. */
export const CANCELLED_FAILURE: Buffer = encodeFailure({
  name: 'CancelledError',
  message: 'The job was cancelled',
  code: 'E_CANCELLED',
})

/** Dependencies of the waits of a queue. */
export interface OutcomeWaitsDeps {
  store: QueueStore
  clock: Clock
  codec: Codec
  limits: CallLimits
  /** A wait queries the outcome after so long without a message, ms. */
  pollInterval: number
  /** A submission was accepted, or joined another one of this process. */
  accepted(id: string, command: string, disposition: Disposition): void
}

/** All waits of this process for jobs of a queue. */
export class OutcomeWaits {
  readonly #deps: OutcomeWaitsDeps
  /** Shared by all waits. */
  readonly #waitDeps: OutcomeWaitDeps
  /** All waits that are not done. */
  readonly #waits = new TransientSet<OutcomeWait>()
  /** Waits that other submissions can join, by job id. */
  readonly #joinable = new TransientMap<string, OutcomeWait>()
  /** Removals of nonces from records that are under way. */
  readonly #leaving = new TransientSet<Promise<void>>()
  readonly #unlisten: () => void

  constructor(deps: OutcomeWaitsDeps) {
    const { store, clock, codec, limits, pollInterval } = deps
    this.#deps = deps
    this.#waitDeps = {
      ...{ store, codec, limits, pollInterval, deadlines: new Deadlines(clock) },
      onAccepted: ({ id, command }, disposition) => deps.accepted(id, command, disposition),
      onDone: (wait) => this.#remove(wait),
      onLeave: (wait) => this.#leave(wait),
    }
    this.#unlisten = store.listen({
      up: () => {
        // Messages were lost while the subscription was down.
        for (const wait of this.#waits) wait.expire()
      },
      down: () => {},
    })
  }

  get size(): number {
    return this.#waits.size
  }

  /** Submits a job and waits for it. An equal submission of this process that is pending is joined instead. */
  submit(submission: Submission, waiter: JobWaiter): void {
    const { id, command, nonce } = submission
    const joinable = this.#findJoinable(submission)
    if (joinable) {
      joinable.add(waiter)
      return this.#deps.accepted(id, command, 'joined')
    }
    const wait = new OutcomeWait(id, command, nonce, 0, submission, this.#waitDeps)
    wait.add(waiter)
    this.#waits.add(wait)
    this.#joinable.set(id, wait)
    wait.submit(submission)
  }

  #findJoinable(submission: Submission): OutcomeWait | undefined {
    const wait = this.#joinable.get(submission.id)
    if (wait?.submission === undefined) return undefined
    const { command, conflict, abortUnwanted, payload } = wait.submission
    // A submission with other options may get another reply, so it is sent by itself.
    const sameOptions = conflict === submission.conflict && abortUnwanted === submission.abortUnwanted
    return sameOptions && command === submission.command && payload === submission.payload ? wait : undefined
  }

  /** Waits for a job that was submitted before. `generation`: the run whose outcome is wanted. */
  waitFor(id: string, command: string, generation: number, waiter: JobWaiter): void {
    const wait = new OutcomeWait(id, command, newId(), generation, undefined, this.#waitDeps)
    wait.add(waiter)
    this.#waits.add(wait)
    wait.registerAndQuery()
  }

  #remove(wait: OutcomeWait): void {
    this.#waits.delete(wait)
    if (this.#joinable.get(wait.id) === wait) this.#joinable.delete(wait.id)
  }

  /** Removes the nonce from the record. The store cancels the job if no waiter is left and the submission asked for that. */
  #leave({ id, command, nonce }: OutcomeWait): void {
    const cancellation: Termination = {
      ...{ id, command, kind: 'error', bytes: CANCELLED_FAILURE },
      ...{ outcomeRetention: OUTCOME_RETENTION, onlyIfUnwanted: true },
    }
    const { store, limits } = this.#deps
    const leaving = store.unpark(nonce, cancellation, limits).catch(() => {})
    this.#leaving.add(leaving)
    void leaving.finally(() => this.#leaving.delete(leaving))
  }

  /** Rejects all waiters. Resolves when their nonces are removed from the records. */
  async close(error: (key: string) => Error): Promise<void> {
    for (const wait of [...this.#waits]) wait.reject(error)
    await Promise.all(this.#leaving)
    this.#unlisten()
  }
}
