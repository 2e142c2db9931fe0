import { RemovedError } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { remoteError } from '../../kernel/codec/failure.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Pending } from '../../kernel/waiter.ts'
import type { Disposition } from '../events/events.ts'
import type { JobNotice, JobOutcome, Submission, SubmissionListener, SubmitReply } from '../store/store.ts'
import type { JobWaiter } from './job-waiter.ts'
import { refusalError } from './submissions.ts'

/** The owner of a wait, as far as the wait uses it. */
export interface OutcomeWaitOwner {
  readonly codec: Codec
  /** Queries the outcome of the job, and answers by `settle`, `expired` or `park`. */
  query(wait: OutcomeWait): void
  /** Schedules the next query of a parked wait. */
  schedulePoll(wait: OutcomeWait): void
  /** The submission was accepted. */
  accepted(wait: OutcomeWait, disposition: Disposition): void
  /** Removes a wait that is done. `parked`: its nonce is to be removed from the record. */
  remove(wait: OutcomeWait, parked: boolean): void
}

/** All waiters of this process for one generation of a job. They share one nonce on the record of the job. */
export class OutcomeWait implements SubmissionListener, Pending {
  readonly id: string
  readonly command: string
  readonly nonce: string
  /** The submission, which equal submissions may join. Undefined if the job was submitted before. */
  readonly submission: Submission | undefined
  deadline = 0
  generation = 0
  readonly #waiters = new Set<JobWaiter>()
  readonly #owner: OutcomeWaitOwner
  #state: 'asking' | 'parked' | 'done' = 'asking'
  /** Set by a notice that arrives while asking: the outcome is to be queried once parked. */
  #hinted = false

  constructor(id: string, command: string, nonce: string, owner: OutcomeWaitOwner, submission?: Submission) {
    this.id = id
    this.command = command
    this.nonce = nonce
    this.#owner = owner
    this.submission = submission
  }

  get size(): number {
    return this.#waiters.size
  }

  /** Whether no waiter is left and none can be added. */
  get done(): boolean {
    return this.#state === 'done'
  }

  add(waiter: JobWaiter): void {
    this.#waiters.add(waiter)
    waiter.onLeave((waiter) => this.#onWaiterLeft(waiter))
  }

  #onWaiterLeft(waiter: JobWaiter): void {
    this.#waiters.delete(waiter)
    if (this.#waiters.size === 0 && this.#state === 'parked') this.#end(true)
  }

  onReply(reply: SubmitReply): void {
    // A late reply, after the call failed. The nonce may be on the record, so remove it.
    if (this.#state === 'done') {
      if (reply.status === 'created' || reply.status === 'joined') this.#owner.remove(this, true)
      return
    }
    switch (reply.status) {
      case 'created':
      case 'joined':
        this.#owner.accepted(this, reply.status)
        this.park(reply.generation)
        break
      case 'cached':
        this.#owner.accepted(this, reply.status)
        this.generation = reply.generation
        this.settle(reply.outcome)
        break
      default:
        this.reject((key) => refusalError(reply.status, key, this.command))
    }
  }

  /** The nonce is on the record, for this generation. */
  park(generation: number): void {
    this.generation = generation
    this.#state = 'parked'
    if (this.#waiters.size === 0) return this.#end(true)
    this.#owner.schedulePoll(this)
    if (!this.#hinted) return
    // Once: if the query finds no outcome, the regular polls go on.
    this.#hinted = false
    this.#owner.query(this)
  }

  onError(error: Error): void {
    this.reject(() => error)
  }

  onNotice(notice: JobNotice): void {
    if (this.#state === 'done') return
    if (notice.kind === 'outcome') this.settle(notice.outcome)
    else if (notice.kind === 'progress') {
      for (const waiter of this.#waiters) waiter.progress(this.#owner.codec, notice.bytes)
    } else if (this.#state === 'parked') this.#owner.query(this)
    else this.#hinted = true
  }

  /** Delivers the outcome to all waiters. */
  settle(outcome: JobOutcome): void {
    if (this.#state === 'done') return
    const waiters = [...this.#waiters]
    this.#end(false)
    if (outcome.kind === 'value') return this.#resolve(waiters, outcome)
    for (const waiter of waiters) waiter.reject(this.#errorOf(outcome))
  }

  #errorOf({ kind, bytes }: JobOutcome): Error {
    if (kind === 'error') return remoteError(bytes, this.id)
    return new RemovedError('The job was removed', { key: this.id })
  }

  #resolve(waiters: readonly JobWaiter[], { bytes, fence }: JobOutcome): void {
    try {
      const result = decodeWith(this.#owner.codec, bytes, this.id)
      for (const waiter of waiters) waiter.resolve(result)
    } catch (error) {
      // The job has run. It is not run again because this process has another codec.
      emit('undecodable', { key: this.id, fence })
      for (const waiter of waiters) waiter.reject(error)
    }
  }

  /** The record of the job has expired, and its outcome with it. */
  expired(): void {
    this.reject((key) => new RemovedError('The job is not there any more, nor what became of it', { key }))
  }

  /** Rejects all waiters, each with an error of its own. */
  reject(error: (key: string) => Error): void {
    const waiters = [...this.#waiters]
    this.#end(this.#state === 'parked')
    for (const waiter of waiters) waiter.reject(error(this.id))
  }

  #end(parked: boolean): void {
    if (this.#state === 'done') return
    this.#state = 'done'
    this.#waiters.clear()
    this.#owner.remove(this, parked)
  }

  /** No message arrived for a poll interval. */
  expire(): void {
    if (this.#state === 'parked') this.#owner.query(this)
  }
}
