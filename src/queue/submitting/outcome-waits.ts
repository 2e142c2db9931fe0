import type { Codec } from '../../kernel/codec/codec.ts'
import { encodeFailure } from '../../kernel/codec/failure.ts'
import { TransientMap, TransientSet } from '../../kernel/collections.ts'
import type { Clock } from '../../kernel/event-loop.ts'
import { newId } from '../../kernel/keys.ts'
import { Deadlines } from '../../kernel/waiter.ts'
import type { Disposition } from '../events/events.ts'
import type { QueueStore, Submission, Termination } from '../store/store.ts'
import type { JobWaiter } from './job-waiter.ts'
import { OutcomeWait, type OutcomeWaitOwner } from './outcome-wait.ts'

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
  unavailableAfter: number
  /** A wait queries the outcome after so long without a message, ms. */
  pollInterval: number
  /** A submission was accepted, or joined another one of this process. */
  accepted(id: string, command: string, disposition: Disposition): void
}

/** All waits of this process for jobs of a queue. */
export class OutcomeWaits implements OutcomeWaitOwner {
  readonly codec: Codec
  readonly #deps: OutcomeWaitsDeps
  readonly #deadlines: Deadlines
  /** All waits that are not done. */
  readonly #waits = new TransientSet<OutcomeWait>()
  /** Waits that other submissions can join, by job id. */
  readonly #joinable = new TransientMap<string, OutcomeWait>()
  readonly #leaving = new TransientSet<Promise<void>>()
  readonly #unlisten: () => void

  constructor(options: OutcomeWaitsDeps) {
    this.#deps = options
    this.codec = options.codec
    this.#deadlines = new Deadlines(options.clock)
    this.#unlisten = options.store.listen({
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
  submit(submission: Submission, waiter: JobWaiter): OutcomeWait {
    const joinable = this.#findJoinable(submission)
    if (joinable) {
      joinable.add(waiter)
      this.#deps.accepted(joinable.id, joinable.command, 'joined')
      return joinable
    }
    const wait = new OutcomeWait(submission.id, submission.command, submission.nonce, this, submission)
    wait.add(waiter)
    this.#waits.add(wait)
    this.#joinable.set(wait.id, wait)
    this.#deps.store.submit(submission, this.#deps.unavailableAfter, wait)
    return wait
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
    const wait = new OutcomeWait(id, command, newId(), this)
    wait.generation = generation
    wait.add(waiter)
    this.#waits.add(wait)
    this.#deps.store.registerWaiter(wait.nonce, wait)
    this.query(wait)
  }

  query(wait: OutcomeWait): void {
    const { store, unavailableAfter } = this.#deps
    const { id, generation, nonce } = wait
    store.queryOutcome({ id, generation, nonce }, { within: unavailableAfter }).then(
      (reply) => {
        if (wait.done) return
        if (reply.status === 'settled') wait.settle(reply.outcome)
        else if (reply.status === 'gone') wait.expired()
        else wait.park(generation)
      },
      // The next poll tries again. The waiters have deadlines of their own.
      () => {
        if (!wait.done) wait.park(generation)
      },
    )
  }

  accepted(wait: OutcomeWait, disposition: Disposition): void {
    this.#deps.accepted(wait.id, wait.command, disposition)
  }

  schedulePoll(wait: OutcomeWait): void {
    this.#deadlines.delete(wait, this.#deps.pollInterval)
    this.#deadlines.add(wait, this.#deps.pollInterval)
  }

  remove(wait: OutcomeWait, parked: boolean): void {
    const { store, pollInterval } = this.#deps
    store.unregister(wait.nonce)
    this.#deadlines.delete(wait, pollInterval)
    this.#waits.delete(wait)
    if (this.#joinable.get(wait.id) === wait) this.#joinable.delete(wait.id)
    if (parked) this.#leave(wait)
  }

  /** Removes the nonce from the record. The store cancels the job if no waiter is left and the submission asked for that. */
  #leave({ id, command, nonce }: OutcomeWait): void {
    const termination: Termination = {
      id,
      command,
      kind: 'error',
      bytes: CANCELLED_FAILURE,
      outcomeRetention: OUTCOME_RETENTION,
      onlyIfUnwanted: true,
    }
    const { store, unavailableAfter } = this.#deps
    const leaving = store.unpark(nonce, termination, { within: unavailableAfter }).catch(() => {})
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
