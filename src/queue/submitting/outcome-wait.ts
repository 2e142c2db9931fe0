import { RemovedError } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { remoteError } from '../../kernel/codec/failure.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Pending } from '../../kernel/time/deadlines.ts'
import type { Disposition } from '../events/events.ts'
import type { JobNotice, JobOutcome, Submission, SubmissionListener, SubmitReply } from '../store/store.ts'
import type { JobWaiter } from './job-waiter.ts'
import { refusedBecause } from './submissions.ts'

/** Where a wait belongs, as far as it must know. */
export interface WaitTable {
  readonly codec: Codec
  /** Looks what became of it, and answers by `settle`, `gone` or `lookLater`. */
  look(wait: Wait): void
  /** It is parked: it is looked after from now on. */
  watch(wait: Wait): void
  /** Its submission was accepted. */
  accepted(wait: Wait, disposition: Disposition): void
  /** It waits no longer, and messages to it are not heard. `parked`: its place on the record is to be given up. */
  remove(wait: Wait, parked: boolean): void
}

/** Those in this process who wait for one generation of a job: one place on its record stands for all of them. */
export class Wait implements SubmissionListener, Pending {
  readonly id: string
  readonly command: string
  readonly nonce: string
  /** What was submitted, for those who come with the same. Undefined when it was submitted before. */
  readonly submission: Submission | undefined
  deadline = 0
  generation = 0
  readonly #waiters = new Set<JobWaiter>()
  readonly #table: WaitTable
  #state: 'asking' | 'parked' | 'over' = 'asking'
  /** Told, while asking, that there is something to look for. */
  #hinted = false

  constructor(id: string, command: string, nonce: string, table: WaitTable, submission?: Submission) {
    this.id = id
    this.command = command
    this.nonce = nonce
    this.#table = table
    this.submission = submission
  }

  get size(): number {
    return this.#waiters.size
  }

  /** Nobody waits here any more. */
  get over(): boolean {
    return this.#state === 'over'
  }

  add(waiter: JobWaiter): void {
    this.#waiters.add(waiter)
    waiter.begin((left) => this.#left(left))
  }

  #left(waiter: JobWaiter): void {
    this.#waiters.delete(waiter)
    if (this.#waiters.size === 0 && this.#state === 'parked') this.#end(true)
  }

  onReply(reply: SubmitReply): void {
    // Late, after it has failed: it may be parked, and nobody waits.
    if (this.#state === 'over') {
      if (reply.status === 'created' || reply.status === 'joined') this.#table.remove(this, true)
      return
    }
    switch (reply.status) {
      case 'created':
      case 'joined':
        this.#table.accepted(this, reply.status)
        this.park(reply.generation)
        break
      case 'cached':
        this.#table.accepted(this, reply.status)
        this.generation = reply.generation
        this.settle(reply.outcome)
        break
      default:
        this.reject((key) => refusedBecause(reply.status, key, this.command))
    }
  }

  /** It is known to be on the record, and what for. */
  park(generation: number): void {
    this.generation = generation
    this.#state = 'parked'
    if (this.#waiters.size === 0) return this.#end(true)
    this.#table.watch(this)
    if (!this.#hinted) return
    // Once: when that brings nothing, it is looked after like all others.
    this.#hinted = false
    this.#table.look(this)
  }

  onError(error: Error): void {
    this.reject(() => error)
  }

  onNotice(notice: JobNotice): void {
    if (this.#state === 'over') return
    if (notice.kind === 'outcome') this.settle(notice.outcome)
    else if (notice.kind === 'progress') {
      for (const waiter of this.#waiters) waiter.progress(this.#table.codec, notice.bytes)
    } else if (this.#state === 'parked') this.#table.look(this)
    else this.#hinted = true
  }

  /** There is an outcome. */
  settle(outcome: JobOutcome): void {
    if (this.#state === 'over') return
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
      const result = decodeWith(this.#table.codec, bytes, this.id)
      for (const waiter of waiters) waiter.resolve(result)
    } catch (error) {
      // The job has run, and is not run again because this submitter has another codec.
      emit('undecodable', { key: this.id, fence })
      for (const waiter of waiters) waiter.reject(error)
    }
  }

  /** The record is not there any more, and with it what became of the job. */
  gone(): void {
    this.reject((key) => new RemovedError('The job is not there any more, nor what became of it', { key }))
  }

  /** Rejects all, each with an error of its own. */
  reject(error: (key: string) => Error): void {
    const waiters = [...this.#waiters]
    this.#end(this.#state === 'parked')
    for (const waiter of waiters) waiter.reject(error(this.id))
  }

  #end(parked: boolean): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.#waiters.clear()
    this.#table.remove(this, parked)
  }

  /** It was not heard of for a while. */
  expire(): void {
    if (this.#state === 'parked') this.#table.look(this)
  }
}
