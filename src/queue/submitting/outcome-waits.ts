import { encodeFailure } from '../../kernel/codec/failure.ts'
import { TransientMap, TransientSet } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import { shown } from '../../kernel/options.ts'
import { Deadlines } from '../../kernel/time.ts'
import type { Disposition } from '../events.ts'
import type { Job, ResultOptions } from '../job.ts'
import { OUTCOME_RETENTION, type QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import type { Submission, Termination } from '../store/store.ts'
import { JobWaiter, type JobWaiterDeps, OutcomeWait, type OutcomeWaitDeps } from './outcome-wait.ts'

/** A wait queries the outcome after so long without a message, ms: a message may have been lost. */
export const OUTCOME_POLL_INTERVAL = 5_000

/** Time allowed for the query of known workers that explains a TimeoutError, ms. */
const WORKER_LOOKUP_TIMEOUT = 80

export const CANCELLED_FAILURE: Buffer = encodeFailure({
  name: 'CancelledError',
  message: 'The job was cancelled',
  code: 'E_CANCELLED',
})

/** Listener of the waits of a queue, and what they ask it. */
export interface OutcomeWaitsListener {
  /** A submission was accepted, or joined another one of this process. */
  submitted(id: string, command: string, disposition: Disposition): void
  /** Whether this process has a worker for the command. */
  hasLocalWorker(command: string): boolean
}

/** A submission that is under way. */
export interface BegunSubmission {
  /** Of the job. */
  readonly id: string
  readonly outcome: Promise<unknown>
  /** Resolves when the store has accepted the submission. Rejects if it refuses it, or does not answer. */
  accepted(): Promise<void>
}

/** All waits of this process for jobs of a queue. */
export class OutcomeWaits {
  readonly #context: QueueContext
  readonly #listener: OutcomeWaitsListener
  readonly #waiterDeps: JobWaiterDeps
  readonly #waitDeps: OutcomeWaitDeps
  /** Of waits that nobody relies on. */
  readonly #readerDeps: OutcomeWaitDeps
  /** All waits that are not done. */
  readonly #waits = new TransientSet<OutcomeWait>()
  /** Waits that other submissions can join, by job id. */
  readonly #joinable = new TransientMap<string, OutcomeWait>()
  /** Removals of nonces from records that are under way. */
  readonly #leaving = new TransientSet<Promise<void>>()
  /** Pending explanations for TimeoutErrors, by command. */
  readonly #explanations = new Map<string, Promise<string>>()
  readonly #unlisten: () => void

  constructor(context: QueueContext, listener: OutcomeWaitsListener) {
    const { store, clock, options, within } = context
    this.#context = context
    this.#listener = listener
    this.#waiterDeps = {
      clock,
      deadlines: new Deadlines(clock),
      explain: (command) => this.#explainTimeout(command),
    }
    this.#waitDeps = {
      ...{ store, within, codec: options.codec, deadlines: new Deadlines(clock) },
      pollInterval: Math.min(options.lease, OUTCOME_POLL_INTERVAL),
      onAccepted: ({ id, command }, disposition) => listener.submitted(id, command, disposition),
      onDone: (wait) => this.#remove(wait),
      onLeave: (wait) => this.#leave(wait, 'unwanted'),
    }
    this.#readerDeps = { ...this.#waitDeps, onLeave: (wait) => this.#leave(wait, 'never') }
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

  /** The jobs that callers of this process wait for, for a census. */
  *census(): Generator<QueueCensusItem> {
    const { queue, options, clock } = this.#context
    const now = clock.now()
    for (const { id, command, first, size } of this.#waits) {
      const common = { queue, prefix: options.prefix, command }
      if (first) yield { ...common, kind: 'waiting', id, age: now - first.since, waiters: size }
    }
  }

  /** Submits a job and waits for it. An equal submission of this process that is pending is joined instead. */
  begin(submission: Submission, options: ResultOptions): BegunSubmission {
    const waiter = this.#createWaiter(submission.id, submission.command, options)
    const wait = this.#submit(submission, waiter)
    return { id: submission.id, outcome: waiter.promise, accepted: () => wait.accepted() }
  }

  #submit(submission: Submission, waiter: JobWaiter): OutcomeWait {
    const { id, command, nonce } = submission
    const joinable = this.#findJoinable(submission)
    if (joinable) {
      joinable.add(waiter)
      this.#listener.submitted(id, command, 'joined')
      return joinable
    }
    const wait = new OutcomeWait(id, command, nonce, 0, submission, this.#waitDeps)
    wait.add(waiter)
    this.#waits.add(wait)
    this.#joinable.set(id, wait)
    wait.submit(submission)
    return wait
  }

  #findJoinable(submission: Submission): OutcomeWait | undefined {
    const wait = this.#joinable.get(submission.id)
    if (wait?.submission === undefined) return undefined
    const { command, conflict, abortUnwanted, payload } = wait.submission
    // The store refuses the second of two.
    if (conflict === 'exclusive') return undefined
    // A submission with other options may get another reply, so it is sent by itself.
    const sameOptions = conflict === submission.conflict && abortUnwanted === submission.abortUnwanted
    return sameOptions && command === submission.command && payload === submission.payload ? wait : undefined
  }

  /** Waits for the outcome of a job that was submitted before. `isReader`: the job goes on, whoever leaves. */
  waitFor({ id, command, generation }: Job, options: ResultOptions, isReader = false): Promise<unknown> {
    const waiter = this.#createWaiter(id, command, options)
    const deps = isReader ? this.#readerDeps : this.#waitDeps
    const wait = new OutcomeWait(id, command, newId(), generation, undefined, deps)
    wait.add(waiter)
    this.#waits.add(wait)
    wait.registerAndQuery()
    return waiter.promise
  }

  #createWaiter(id: string, command: string, { timeout, signal, onProgress }: ResultOptions): JobWaiter {
    const { options } = this.#context
    const terms = { command, timeout: timeout ?? options.timeout, signal, onProgress }
    return new JobWaiter(id, terms, this.#waiterDeps)
  }

  #remove(wait: OutcomeWait): void {
    this.#waits.delete(wait)
    if (this.#joinable.get(wait.id) === wait) this.#joinable.delete(wait.id)
  }

  /** Removes the nonce from the record. `when`: whether the store cancels the job then. */
  #leave({ id, command, nonce }: OutcomeWait, when: Termination['when']): void {
    const cancellation: Termination = {
      ...{ id, command, kind: 'error', bytes: CANCELLED_FAILURE },
      ...{ outcomeRetention: OUTCOME_RETENTION, when },
    }
    const { store, within } = this.#context
    const leaving = store.unpark(nonce, cancellation, within).catch(() => {})
    this.#leaving.add(leaving)
    void leaving.finally(() => this.#leaving.delete(leaving))
  }

  /** Text for a TimeoutError: names the command, and says if no worker is known. One query serves concurrent timeouts. */
  #explainTimeout(command: string): Promise<string> {
    const target = `of ${shown(command)} in the queue ${shown(this.#context.queue)}`
    const pending = this.#explanations.get(command)
    if (pending) return pending
    const explanation = this.#hasWorker(command).then((known) => {
      this.#explanations.delete(command)
      return known ? target : `${target}, and no worker is known that processes it`
    })
    this.#explanations.set(command, explanation)
    return explanation
  }

  /** Whether a worker of the command is known. True if the store does not answer in time. */
  #hasWorker(command: string): Promise<boolean> {
    if (this.#listener.hasLocalWorker(command)) return Promise.resolve(true)
    const { store, clock } = this.#context
    return new Promise((resolve) => {
      const timer = clock.after(WORKER_LOOKUP_TIMEOUT, () => resolve(true))
      store
        .hasWorker(command, WORKER_LOOKUP_TIMEOUT)
        .then(resolve, () => resolve(true))
        .finally(() => timer.cancel())
    })
  }

  /** Rejects all waiters. Resolves when their nonces are removed from the records. */
  async close(error: (key: string) => Error): Promise<void> {
    for (const wait of [...this.#waits]) wait.reject(error)
    await Promise.all(this.#leaving)
    this.#unlisten()
  }
}
