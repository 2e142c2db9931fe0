import { AbortedError, LeaseLostError, type SoloflightError, TimeoutError } from '../../errors.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { checkTimeout } from '../../kernel/options.ts'
import { type AsyncContext, lossMargin, RENEW_AFTER, renewalRetryPause } from '../../kernel/time.ts'
import type { QueueContext, ResolvedQueueOptions } from '../options.ts'
import type { AttemptRef, Delivery, FinishReply, WorkerRef } from '../store/store.ts'
import { decodePayload, type JobOptions, unpackOptions } from '../submitting/submission.ts'
import {
  type AttemptResult,
  failureResult,
  outcomeOf,
  REQUEUE,
  type ResultSource,
  valueResult,
} from './attempt-result.ts'
import { type Handler, JobOutput, type RunningJob } from './running-job.ts'

/** Dependencies of an attempt. All attempts of a worker share them. */
export interface AttemptDeps extends QueueContext {
  readonly worker: WorkerRef
  /** Context of the call of `process`. The handler and its hooks run in it. */
  readonly context: AsyncContext
}

/**
 * The states of an attempt, and what leads from one to the next:
 *
 * | state | lease renewed | run() | handler ends | reply to report() | lost or requeued |
 * | --- | --- | --- | --- | --- | --- |
 * | delivered | accepted | running | | | lost |
 * | accepted | | running | | | lost |
 * | running | | | reporting | | lost |
 * | reporting | | | | accepted: done; refused: lost | lost |
 * | lost | | | | accepted: done | |
 * | done | | | | | |
 *
 * Until the handler is called, only the store decides whether the lease is held; an attempt that it does not accept in time
 * is lost. From then on the attempt is lost shortly before the lease ends. It is lost as well when the job is cancelled,
 * given to another worker or requeued, and when the handler exceeds `maxHold`. A lost attempt is done after all if the store
 * accepts its report: one that was under way, or that of an attempt that exceeded `maxHold`. A requeued attempt stays lost.
 */
type AttemptState =
  | { readonly kind: 'delivered' | 'accepted' | 'reporting' }
  | { readonly kind: 'running'; readonly startedAt: number }
  | { readonly kind: 'lost'; readonly reason: unknown }
  /** `reason`: why the attempt was lost before; undefined if it was not. */
  | { readonly kind: 'done'; readonly reason: unknown }

const ATTEMPT_TRANSITIONS: Transitions<AttemptState['kind']> = {
  delivered: ['accepted', 'running', 'lost'],
  accepted: ['running', 'lost'],
  running: ['reporting', 'lost'],
  reporting: ['done', 'lost'],
  lost: ['done'],
  done: [],
}

const DELIVERED: AttemptState = { kind: 'delivered' }
const ACCEPTED: AttemptState = { kind: 'accepted' }
const REPORTING: AttemptState = { kind: 'reporting' }
const DONE: AttemptState = { kind: 'done', reason: undefined }

/** One attempt of a job by this process, from its delivery to its end. */
export class Attempt implements ResultSource {
  readonly delivery: Delivery
  readonly jobOptions: JobOptions
  readonly #deps: AttemptDeps
  #state: AttemptState = DELIVERED
  /** Undefined until `accept` has read it, if it was too large for the message. */
  #payload: string | undefined
  /** Created on first access of `signal`: it is expensive, and most handlers never read it. */
  #abortController: AbortController | undefined
  /** End of the lease by the clock of this process, ms. Written by each renewal. */
  #leaseEndsAt: number
  #renewAt: number
  /** Number of renewals that are under way. */
  #renewals = 0
  /** Written by `reportOverdue`: whether the store accepted that report. */
  overdueReport: Promise<boolean> | undefined
  /** Written by the handler, through `retryAfter`. */
  minRetryDelay = 0
  /** Undefined until the handler shows progress or logs a line. */
  #output: JobOutput | undefined

  constructor(delivery: Delivery, deps: AttemptDeps) {
    this.delivery = delivery
    this.#deps = deps
    this.#payload = delivery.payload
    this.jobOptions = unpackOptions(delivery.options)
    const now = deps.clock.now()
    this.#leaseEndsAt = now + delivery.leaseLeft
    this.#renewAt = now + delivery.leaseLeft * RENEW_AFTER
  }

  get signal(): AbortSignal {
    if (!this.#abortController) {
      this.#abortController = new AbortController()
      const state = this.#state
      if ('reason' in state && state.reason !== undefined) this.#abortController.abort(state.reason)
    }
    return this.#abortController.signal
  }

  /** Whether the attempt was lost, cancelled or requeued. */
  get lost(): boolean {
    return this.#state.kind === 'lost'
  }

  /** Whether the attempt is lost, or the store has accepted its report. Its handler may still run. */
  get ended(): boolean {
    return this.lost || this.#state.kind === 'done'
  }

  /** The reason of the loss; undefined while the attempt is not lost. */
  get lossReason(): unknown {
    return this.#state.kind === 'lost' ? this.#state.reason : undefined
  }

  /** Identifies the attempt among those of its worker. */
  get key(): string {
    return `${this.delivery.fence} ${this.delivery.id}`
  }

  get id(): string {
    return this.delivery.id
  }

  get command(): string {
    return this.#deps.worker.command
  }

  get number(): number {
    return this.delivery.failures + 1
  }

  /** When its handler began, by the clock; undefined: it does not run. */
  get startedAt(): number | undefined {
    return this.#state.kind === 'running' ? this.#state.startedAt : undefined
  }

  get options(): ResolvedQueueOptions {
    return this.#deps.options
  }

  get context(): AsyncContext {
    return this.#deps.context
  }

  /** Whether the handler may be called: the payload is here and the lease has not ended. */
  get ready(): boolean {
    return !this.lost && this.#payload !== undefined && this.#leaseHolds(this.#deps.clock.now())
  }

  /** The margin is longer than the time between two checks, however short the lease is: a loss is noticed before its end. */
  #leaseHolds(now: number): boolean {
    return now < this.#leaseEndsAt - lossMargin(this.#deps.options.lease)
  }

  get #ref(): AttemptRef {
    const { id, fence } = this.delivery
    return { worker: this.#deps.worker, id, fence }
  }

  get #errorInfo(): { key: string } {
    return { key: this.delivery.id }
  }

  #enter(state: AttemptState): void {
    assertTransition('attempt', ATTEMPT_TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /** Accepts the delivery, and reads a payload that was too large for the message. */
  async accept(): Promise<void> {
    await this.#renew()
    if (this.lost || this.#payload !== undefined) return
    const { store, within } = this.#deps
    this.#payload = await store.readPayload(this.#ref, within).catch(() => undefined)
    if (this.#payload === undefined)
      this.lose(new LeaseLostError('The payload could not be read', this.#errorInfo))
  }

  /** Renews the lease or notices its loss. Returns the result to report when the attempt exceeds `maxHold`. */
  checkLease(): AttemptResult | undefined {
    const state = this.#state
    if (this.ended) return undefined
    const { clock, options } = this.#deps
    const now = clock.now()
    const isStarted = state.kind === 'running' || state.kind === 'reporting'
    if (isStarted && !this.#leaseHolds(now)) {
      this.lose(new LeaseLostError('The lease ran out: it could not be renewed in time', this.#errorInfo))
    } else if (state.kind === 'running' && now - state.startedAt >= options.maxHold) {
      return this.#exceedMaxHold()
    } else if (now >= this.#renewAt && this.#renewals === 0) {
      void this.#renew()
    }
    return undefined
  }

  /** The attempt took longer than `maxHold`. It fails, whatever the handler does afterwards. */
  #exceedMaxHold(): AttemptResult {
    const { maxHold } = this.#deps.options
    const error = new TimeoutError(`The attempt took longer than ${maxHold} ms`, this.#errorInfo)
    this.lose(error)
    return failureResult(this, error)
  }

  async #renew(): Promise<void> {
    const { store, clock, options, within } = this.#deps
    const { lease } = options
    const sentAt = clock.now()
    this.#renewals++
    try {
      const reply = await store.renew(this.#ref, lease, within)
      if (reply === 'held') this.#renewed(sentAt)
      else if (reply === 'cancelled') this.cancel()
      else this.lose(this.#replaced())
    } catch {
      this.#renewAt = clock.now() + renewalRetryPause(lease)
    } finally {
      this.#renewals--
    }
  }

  #renewed(sentAt: number): void {
    const { lease } = this.#deps.options
    this.#leaseEndsAt = sentAt + lease
    this.#renewAt = sentAt + lease * RENEW_AFTER
    if (this.#state === DELIVERED) this.#enter(ACCEPTED)
  }

  #replaced(): LeaseLostError {
    return new LeaseLostError('The job was given to another worker', this.#errorInfo)
  }

  /** The job was cancelled or removed. */
  cancel(): void {
    this.lose(new AbortedError('The job was cancelled', this.#errorInfo))
  }

  lose(reason: SoloflightError): void {
    if (this.ended) return
    this.#enter({ kind: 'lost', reason })
    this.#output?.stopProgress()
    this.#deps.context.run(() => this.#abortController?.abort(reason))
  }

  /** Calls the handler. Never rejects. */
  async run(handler: Handler): Promise<AttemptResult> {
    this.#enter({ kind: 'running', startedAt: this.#deps.clock.now() })
    try {
      const payload = decodePayload(this.#payload ?? '')
      return valueResult(
        this,
        await this.#deps.context.run(() => handler(payload, this.#runningJob(payload))),
      )
    } catch (error) {
      return failureResult(this, error)
    } finally {
      this.#output?.stopProgress()
      if (!this.ended) this.#enter(REPORTING)
    }
  }

  /**
   * Reports the result of the handler to the store. If that has not accepted it, the attempt is lost.
   * Rejects if the store does not answer: then it may be called again. `releasesSlot`: the worker can take another job.
   */
  async report(result: AttemptResult, releasesSlot: boolean): Promise<FinishReply> {
    const reply = await this.#sendOutcome(result, releasesSlot)
    if (reply !== 'lost') this.#enter(this.lost ? { kind: 'done', reason: this.lossReason } : DONE)
    else if (!this.lost) this.#enter({ kind: 'lost', reason: result.error ?? this.#replaced() })
    return reply
  }

  /**
   * Reports the failure of an attempt that exceeded `maxHold`, while its handler still runs. Returns whether the store
   * accepted it. If the store does not answer, the job is requeued when the lease ends.
   */
  reportOverdue(result: AttemptResult): Promise<boolean> {
    this.overdueReport = this.#reportOverdue(result)
    return this.overdueReport
  }

  async #reportOverdue(result: AttemptResult): Promise<boolean> {
    const reply = await this.#sendOutcome(result, false).catch(() => 'lost')
    const accepted = reply !== 'lost'
    if (accepted) this.#enter({ kind: 'done', reason: this.lossReason })
    return accepted
  }

  /** Gives the job back, for another worker. If the store does not answer, the job is requeued when the lease ends. */
  async requeue(reason: SoloflightError): Promise<void> {
    const sent = this.#sendOutcome(REQUEUE, false).catch(() => {})
    this.lose(reason)
    await sent
  }

  /** Sends an outcome after the last log lines. Sent again without an answer to the first, it is 'repeated'. */
  async #sendOutcome(result: AttemptResult, releasesSlot: boolean): Promise<FinishReply> {
    const logWritten = this.#output?.logWritten
    if (logWritten) await logWritten
    const { store, options, within } = this.#deps
    return store.finish(outcomeOf(this.#ref, result, options, releasesSlot), within)
  }

  #runningJob(payload: unknown): RunningJob {
    const { id, stalls, fence } = this.delivery
    const attempt = this
    return {
      id,
      queue: this.#deps.queue,
      command: this.command,
      payload,
      payloadText: this.#payload ?? '',
      attempt: this.number,
      stalls,
      fence,
      get signal() {
        return attempt.signal
      },
      trace: this.jobOptions.trace,
      progress: (value) => {
        if (this.#state.kind === 'running') this.#requireOutput().progress(value)
      },
      log: (line) => {
        if (!this.ended) this.#requireOutput().log(line)
      },
      retryAfter: (ms) => {
        checkTimeout('ms', ms)
        this.minRetryDelay = ms
      },
    }
  }

  #requireOutput(): JobOutput {
    const { store, within, clock, options } = this.#deps
    this.#output ??= new JobOutput(this.#ref, store, within, clock, options.codec)
    return this.#output
  }
}
