import pDefer, { type DeferredPromise } from 'p-defer'
import { AbortedError, RemovedError, TimeoutError } from '../../errors.ts'
import { type Codec, decodeWith } from '../../kernel/codec/codec.ts'
import { remoteError } from '../../kernel/codec/failure.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { notifyProgress } from '../../kernel/hooks.ts'
import { emit } from '../../kernel/telemetry.ts'
import { AsyncContext, type Clock, type Deadlines, type Pending } from '../../kernel/time.ts'
import { BaseWaiter } from '../../kernel/waiter.ts'
import { callingWork } from '../../kernel/work-scheduler.ts'
import type { Disposition } from '../events.ts'
import type {
  JobNotice,
  JobOutcome,
  QueueStore,
  Submission,
  SubmissionListener,
  SubmitReply,
} from '../store/store.ts'
import { refusalError } from './submission.ts'

/** Dependencies of a wait, and its events. All waits of a queue share one object. */
export interface OutcomeWaitDeps {
  readonly store: QueueStore
  readonly codec: Codec
  readonly deadlines: Deadlines
  readonly within: number
  /** A parked wait queries the outcome after so long without a message, ms. */
  readonly pollInterval: number
  /** The store accepted the submission. */
  onAccepted(wait: OutcomeWait, disposition: Disposition): void
  onDone(wait: OutcomeWait): void
  /** The nonce of a wait that is done is on the record of the job, from which it must be removed. */
  onLeave(wait: OutcomeWait): void
}

/**
 * The states of a wait. Its nonce is on the record of the job while it is parked.
 *
 * ```
 * submit() ──► asking ──── created, joined, pending ────► parked ◄─┐ every poll interval without a message, at a notice and
 * query()        │ notice                                 ▲  │  └──┘ after a lost subscription: queries the outcome
 *                ▼                                        │  │
 *              hinted ─── created, joined, pending: ──────┘  │ outcome, job gone, close, or the last waiter left
 *                │        queries at once                    ▼
 *                └── cached, refused, failed, outcome ────► done
 * ```
 *
 * When the last waiter leaves while the submission is under way, the wait first parks: its nonce has to be removed.
 */
type WaitState = 'asking' | 'hinted' | 'parked' | 'done'

const WAIT_TRANSITIONS: Transitions<WaitState> = {
  asking: ['hinted', 'parked', 'done'],
  hinted: ['parked', 'done'],
  parked: ['done'],
  done: [],
}

/** All waiters of this process for one generation of a job. They share one nonce on the record of the job. */
export class OutcomeWait implements SubmissionListener, Pending {
  readonly id: string
  readonly command: string
  readonly nonce: string
  /** The submission, which equal submissions may join. Undefined if the job was submitted before. */
  readonly submission: Submission | undefined
  /** Written by {@link Deadlines}. */
  deadline = 0
  /** The generation that is waited for; 0 until the store has accepted the submission. */
  #generation: number
  readonly #waiters = new Set<JobWaiter>()
  /** What the store has said of the submission; undefined: nothing yet. */
  #reply: { readonly error?: Error } | undefined
  /** Created when that is asked for before it is known. */
  #acceptance: DeferredPromise<void> | undefined
  readonly #deps: OutcomeWaitDeps
  #state: WaitState = 'asking'

  constructor(
    id: string,
    command: string,
    nonce: string,
    generation: number,
    submission: Submission | undefined,
    deps: OutcomeWaitDeps,
  ) {
    this.id = id
    this.command = command
    this.nonce = nonce
    this.#generation = generation
    this.submission = submission
    this.#deps = deps
  }

  #enter(state: WaitState): void {
    assertTransition('outcome wait', WAIT_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** Number of its waiters. */
  get size(): number {
    return this.#waiters.size
  }

  /** The one that has waited longest. */
  get first(): JobWaiter | undefined {
    const [first] = this.#waiters
    return first
  }

  add(waiter: JobWaiter): void {
    this.#waiters.add(waiter)
    waiter.onLeave((waiter) => this.#onWaiterLeft(waiter))
  }

  #onWaiterLeft(waiter: JobWaiter): void {
    this.#waiters.delete(waiter)
    if (this.#waiters.size === 0 && this.#state === 'parked') this.#end()
  }

  /** Resolves when the store has accepted the submission. Rejects if it refuses it, or does not answer. */
  async accepted(): Promise<void> {
    this.#acceptance ??= pDefer()
    if (this.#reply) this.#tellAcceptance(this.#reply)
    return this.#acceptance.promise
  }

  #tellAcceptance(reply: { readonly error?: Error }): void {
    this.#reply ??= reply
    if (this.#reply.error) this.#acceptance?.reject(this.#reply.error)
    else this.#acceptance?.resolve()
  }

  /** Submits the job. */
  submit(submission: Submission): void {
    const { store, within } = this.#deps
    store.submit(submission, within, this)
  }

  /** Queries the outcome of a job that was submitted before, and parks if it has none. */
  registerAndQuery(): void {
    this.#deps.store.registerWaiter(this.nonce, this)
    this.#query()
  }

  #query(): void {
    const { store, within } = this.#deps
    const query = { id: this.id, generation: this.#generation, nonce: this.nonce }
    store.queryOutcome(query, within).then(
      (reply) => {
        if (reply.status === 'settled') this.#settle(reply.outcome)
        else if (reply.status === 'gone') this.reject((key) => expiredError(key))
        else this.#onPending()
      },
      // The next poll tries again. The waiters have deadlines of their own.
      () => this.#onPending(),
    )
  }

  #onPending(): void {
    if (this.#state === 'parked') this.#schedulePoll()
    else if (this.#state !== 'done') this.#park(this.#generation)
  }

  onReply(reply: SubmitReply): void {
    const { status } = reply
    if ('generation' in reply) this.#tellAcceptance({})
    // A late reply, after the call failed. The nonce may be on the record.
    if (this.#state === 'done') {
      if (status === 'created' || status === 'joined') this.#deps.onLeave(this)
      return
    }
    switch (status) {
      case 'created':
      case 'joined':
        this.#deps.onAccepted(this, status)
        return this.#park(reply.generation)
      case 'cached':
        this.#deps.onAccepted(this, status)
        return this.#settle(reply.outcome)
      default:
        this.reject((key) => refusalError(status, key, this.command))
    }
  }

  onError(error: Error): void {
    this.#tellAcceptance({ error })
    this.reject(() => error)
  }

  #park(generation: number): void {
    this.#generation = generation
    const wasHinted = this.#state === 'hinted'
    this.#enter('parked')
    if (this.#waiters.size === 0) return this.#end()
    this.#schedulePoll()
    if (wasHinted) this.#query()
  }

  #schedulePoll(): void {
    const { deadlines, pollInterval } = this.#deps
    deadlines.delete(this, pollInterval)
    deadlines.add(this, pollInterval)
  }

  onNotice(notice: JobNotice): void {
    if (this.#state === 'done') return
    if (notice.kind === 'outcome') this.#settle(notice.outcome)
    else if (notice.kind === 'progress') {
      for (const waiter of this.#waiters) waiter.progress(this.#deps.codec, notice.bytes)
    } else if (this.#state === 'parked') this.#query()
    else if (this.#state === 'asking') this.#enter('hinted')
  }

  /** No message arrived for a poll interval, or messages may have been lost. */
  expire(): void {
    if (this.#state === 'parked') this.#query()
  }

  #settle(outcome: JobOutcome): void {
    if (this.#state === 'done') return
    const waiters = [...this.#waiters]
    // The store removes the nonce with the outcome.
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
      const result = decodeWith(this.#deps.codec, bytes, this.id)
      for (const waiter of waiters) waiter.resolve(result)
    } catch (error) {
      // The job has run. It is not run again because this process has another codec.
      emit('undecodable', { key: this.id, fence })
      for (const waiter of waiters) waiter.reject(error)
    }
  }

  /** Rejects all waiters, each with an error of its own. */
  reject(error: (key: string) => Error): void {
    if (this.#state === 'done') return
    this.#tellAcceptance({ error: error(this.id) })
    const waiters = [...this.#waiters]
    this.#end()
    for (const waiter of waiters) waiter.reject(error(this.id))
  }

  /** `leaves`: the nonce must be removed from the record. */
  #end(leaves: boolean = this.#state === 'parked'): void {
    const { store, deadlines, pollInterval, onDone, onLeave } = this.#deps
    this.#enter('done')
    this.#waiters.clear()
    store.unregister(this.nonce)
    deadlines.delete(this, pollInterval)
    onDone(this)
    if (leaves) onLeave(this)
  }
}

function expiredError(key: string): RemovedError {
  return new RemovedError('The job has expired, and its outcome with it', { key })
}

export interface JobWaiterOptions {
  command: string
  timeout: number
  signal: AbortSignal | undefined
  onProgress: ((value: unknown) => void) | undefined
}

/** Dependencies of a waiter. All waiters of a queue share them. */
export interface JobWaiterDeps {
  readonly clock: Clock
  readonly deadlines: Deadlines
  /** Describes a command and its workers in the message of a TimeoutError. Never rejects. */
  explain(command: string): Promise<string>
}

/** Waits for the outcome of a job on behalf of one caller. */
export class JobWaiter extends BaseWaiter {
  readonly id: string
  readonly options: JobWaiterOptions
  readonly #deps: JobWaiterDeps
  /** Context of the caller, in which `onProgress` runs; undefined without `onProgress`. */
  readonly #context: AsyncContext | undefined
  /** Takes back the slot that the calling work lends while it waits. */
  readonly #reclaimSlot = callingWork()?.slot.lend()
  #onLeave: ((waiter: JobWaiter) => void) | undefined

  constructor(id: string, options: JobWaiterOptions, deps: JobWaiterDeps) {
    const { timeout, signal, onProgress } = options
    super({ key: id, timeout, signal }, deps.clock, deps.deadlines, false)
    this.id = id
    this.options = options
    this.#deps = deps
    this.#context = onProgress && new AsyncContext()
  }

  /** Sets the function that is called when the waiter ends. */
  onLeave(listener: (waiter: JobWaiter) => void): void {
    this.#onLeave = listener
  }

  /** Passes progress of the handler to `onProgress`. */
  progress(codec: Codec, bytes: Buffer): void {
    const { onProgress } = this.options
    if (onProgress) notifyProgress(codec, bytes, this.#context, onProgress)
  }

  expire(): void {
    const { command, timeout } = this.options
    // An outcome that arrives before the explanation is still delivered.
    void this.#deps.explain(command).then((explanation) => {
      const message = `No outcome ${explanation}, within ${timeout} ms; the job ${this.id} goes on`
      this.reject(new TimeoutError(message, { key: this.id }))
    })
  }

  protected onAborted(cause: unknown): void {
    this.reject(new AbortedError('The signal aborted while the submitter waited', { key: this.id, cause }))
  }

  protected onEnded(): void {
    this.#reclaimSlot?.()
    this.#onLeave?.(this)
  }
}
