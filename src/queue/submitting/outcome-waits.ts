import type { Codec } from '../../kernel/codec/codec.ts'
import { encodeFailure } from '../../kernel/codec/failure.ts'
import { TransientMap, TransientSet } from '../../kernel/collections/churn.ts'
import { newId } from '../../kernel/ids.ts'
import type { Clock } from '../../kernel/time/clock.ts'
import { Deadlines } from '../../kernel/time/deadlines.ts'
import type { Disposition } from '../events/events.ts'
import type { QueueStore, Submission, Termination } from '../store/store.ts'
import type { JobWaiter } from './job-waiter.ts'
import { Wait, type WaitTable } from './outcome-wait.ts'

/** Who waits looks again after so long, ms, if it has heard nothing: a message may have been lost. */
export const LOOK_AFTER = 5_000

/** What became of a job stays readable for so long, ms, whatever its ttl: for those whose message was lost. */
export const LINGER = 15_000

/** What is said of a job that was cancelled. */
export const CANCELLED: Buffer = encodeFailure({
  name: 'CancelledError',
  message: 'The job was cancelled',
  code: 'E_CANCELLED',
})

/** What the waits of a queue are made with. */
export interface WaitsOptions {
  store: QueueStore
  clock: Clock
  codec: Codec
  unavailableAfter: number
  /** Who waits looks again after so long, ms. */
  lookAfter: number
  /** A submission was accepted, or has joined another of this process. */
  accepted(id: string, command: string, disposition: Disposition): void
}

/** Those in this process who wait for jobs of a queue. */
export class Waits implements WaitTable {
  readonly codec: Codec
  readonly #options: WaitsOptions
  readonly #deadlines: Deadlines
  /** All that are not over. */
  readonly #waits = new TransientSet<Wait>()
  /** Those that others can join, by job. */
  readonly #open = new TransientMap<string, Wait>()
  readonly #leaving = new TransientSet<Promise<void>>()
  readonly #unlisten: () => void

  constructor(options: WaitsOptions) {
    this.#options = options
    this.codec = options.codec
    this.#deadlines = new Deadlines(options.clock)
    this.#unlisten = options.store.listen({
      up: () => {
        // What was told meanwhile was not heard.
        for (const wait of this.#waits) wait.expire()
      },
      down: () => {},
    })
  }

  get size(): number {
    return this.#waits.size
  }

  /** Submits a job and waits for it, together with those of this process who wait for the same. */
  submit(submission: Submission, waiter: JobWaiter): Wait {
    const open = this.#joinable(submission)
    if (open) {
      open.add(waiter)
      this.#options.accepted(open.id, open.command, 'joined')
      return open
    }
    const wait = new Wait(submission.id, submission.command, submission.nonce, this, submission)
    wait.add(waiter)
    this.#waits.add(wait)
    this.#open.set(wait.id, wait)
    this.#options.store.submit(submission, this.#options.unavailableAfter, wait)
    return wait
  }

  #joinable(submission: Submission): Wait | undefined {
    const open = this.#open.get(submission.id)
    if (open?.submission === undefined) return undefined
    const { command, conflict, abortUnwanted, payload } = open.submission
    // What was asked otherwise may be answered otherwise: it is handed in by itself.
    const asked = conflict === submission.conflict && abortUnwanted === submission.abortUnwanted
    return asked && command === submission.command && payload === submission.payload ? open : undefined
  }

  /** Waits for a job that was submitted before. */
  attend(id: string, command: string, generation: number, waiter: JobWaiter): void {
    const wait = new Wait(id, command, newId(), this)
    wait.generation = generation
    wait.add(waiter)
    this.#waits.add(wait)
    this.#options.store.registerWaiter(wait.nonce, wait)
    this.look(wait)
  }

  look(wait: Wait): void {
    const { store, unavailableAfter } = this.#options
    const { id, generation, nonce } = wait
    store.queryOutcome({ id, generation, nonce }, { within: unavailableAfter }).then(
      (answer) => {
        if (wait.over) return
        if (answer.status === 'settled') wait.settle(answer.outcome)
        else if (answer.status === 'gone') wait.gone()
        else wait.park(generation)
      },
      // It is tried again later; those who wait have deadlines of their own.
      () => {
        if (!wait.over) wait.park(generation)
      },
    )
  }

  accepted(wait: Wait, disposition: Disposition): void {
    this.#options.accepted(wait.id, wait.command, disposition)
  }

  watch(wait: Wait): void {
    this.#deadlines.delete(wait, this.#options.lookAfter)
    this.#deadlines.add(wait, this.#options.lookAfter)
  }

  remove(wait: Wait, parked: boolean): void {
    const { store, lookAfter } = this.#options
    store.unregister(wait.nonce)
    this.#deadlines.delete(wait, lookAfter)
    this.#waits.delete(wait)
    if (this.#open.get(wait.id) === wait) this.#open.delete(wait.id)
    if (parked) this.#leave(wait)
  }

  /** Gives a place on the record up, and with the last one the job, if its submission says so. */
  #leave({ id, command, nonce }: Wait): void {
    const removal: Termination = {
      id,
      command,
      kind: 'error',
      bytes: CANCELLED,
      outcomeRetention: LINGER,
      onlyIfUnwanted: true,
    }
    const { store, unavailableAfter } = this.#options
    const leaving = store.unpark(nonce, removal, { within: unavailableAfter }).catch(() => {})
    this.#leaving.add(leaving)
    void leaving.finally(() => this.#leaving.delete(leaving))
  }

  /** Rejects all, and resolves when their places are given up. */
  async close(error: (key: string) => Error): Promise<void> {
    for (const wait of [...this.#waits]) wait.reject(error)
    await Promise.all(this.#leaving)
    this.#unlisten()
  }
}
