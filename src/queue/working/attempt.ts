import {
  AbortedError,
  CodecError,
  LeaseLostError,
  type RemoteFailure,
  type SoloflightError,
  TimeoutError,
} from '../../errors.ts'
import { encodeWith } from '../../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../../kernel/codec/failure.ts'
import type { AsyncContext, Clock, Timer } from '../../kernel/event-loop.ts'
import { callHook } from '../../kernel/hooks.ts'
import { lossMargin } from '../../kernel/lease/lease-timer.ts'
import type { ResolvedQueueOptions } from '../options.ts'
import {
  type AttemptOutcome,
  type Delivery,
  MESSAGE_LIMIT,
  type QueueStore,
  type WorkerRef,
} from '../store/store.ts'
import { isDedupeId } from '../submitting/dedupe-id.ts'
import { type JobOptions, unpackOptions } from '../submitting/job-options.ts'
import { OUTCOME_RETENTION } from '../submitting/outcome-waits.ts'
import { decodePayload } from '../submitting/payload.ts'
import { backoffDelay } from './backoff.ts'
import type { Handler, RunningJob } from './running-job.ts'

/** Dependencies of an attempt. All attempts of a worker share them. */
export interface AttemptDeps {
  readonly queue: string
  readonly worker: WorkerRef
  readonly store: QueueStore
  readonly clock: Clock
  readonly options: ResolvedQueueOptions
  /** Context of the call of `process`. The handler and its hooks run in it. */
  readonly context: AsyncContext
}

/** Result of the handler, as it is reported to the store. `error` is the thrown value. */
export type AttemptResult = Pick<AttemptOutcome, 'kind' | 'bytes' | 'ttl' | 'delay'> & { error?: unknown }

/** Shortest time between two progress messages, ms. */
const PROGRESS_INTERVAL = 50

const NO_BYTES = Buffer.alloc(0)

/** One attempt of a job by this process, from its delivery to its end. */
export class Attempt {
  readonly delivery: Delivery
  readonly jobOptions: JobOptions
  readonly #deps: AttemptDeps
  #payload: string | undefined
  /** Created on first access of `signal`: it is expensive, and most handlers never read it. */
  #abortController: AbortController | undefined
  #reason: SoloflightError | undefined
  /** End of the lease by the clock of this process, ms. Written by each renewal. */
  #leaseEndsAt: number
  #renewAt: number
  /** The attempt counts as lost this long before the end of the lease, ms. */
  #margin: number
  #renewing = false
  /** Time at which the handler was called; 0 while it does not run. */
  #startedAt = 0
  /** Set when the handler is called. Before that, only the store decides whether the lease is held. */
  #handlerCalled = false
  /** Latest progress that is not sent yet, and the timer after which it may be sent. */
  #pendingProgress: Buffer | undefined
  #progressTimer: Timer | undefined
  /** Log lines that are not sent yet, and the number of lines passed to the store. */
  readonly #logLines: string[] = []
  #loggedCount = 0
  /** Set while a log call is under way. One call at a time keeps the lines in order if a command is resent. */
  #logWrite: Promise<void> | undefined

  constructor(delivery: Delivery, deps: AttemptDeps) {
    this.delivery = delivery
    this.#deps = deps
    this.#payload = delivery.payload
    this.jobOptions = unpackOptions(delivery.options)
    const now = deps.clock.now()
    this.#leaseEndsAt = now + delivery.leaseLeft
    this.#renewAt = now + delivery.leaseLeft / 3
    this.#margin = Math.min(lossMargin(deps.options.lease), delivery.leaseLeft / 4)
  }

  get signal(): AbortSignal {
    if (!this.#abortController) {
      this.#abortController = new AbortController()
      if (this.#reason) this.#abortController.abort(this.#reason)
    }
    return this.#abortController.signal
  }

  /** Whether the attempt was lost or cancelled. */
  get lost(): boolean {
    return this.#reason !== undefined
  }

  /** Undefined while the attempt is not lost. */
  get reason(): SoloflightError | undefined {
    return this.#reason
  }

  /** Identifies the attempt among those of its worker. */
  get key(): string {
    return `${this.delivery.fence} ${this.delivery.id}`
  }

  get number(): number {
    return this.delivery.failures + 1
  }

  /** Whether the handler may be called: the payload is here and the lease has not ended. */
  get ready(): boolean {
    return this.#payload !== undefined && this.#deps.clock.now() < this.#leaseEndsAt - this.#margin
  }

  /** The attempt took longer than `maxHold`. It fails, whatever the handler does afterwards. */
  #exceedMaxHold(): AttemptResult {
    const { maxHold } = this.#deps.options
    const error = new TimeoutError(`The attempt took longer than ${maxHold} ms`, this.#errorInfo)
    this.lose(error)
    return this.#failureResult(error)
  }

  /** Renews the lease or notices its loss. Returns the result to report when the attempt exceeds `maxHold`. */
  checkLease(): AttemptResult | undefined {
    if (this.lost) return undefined
    const { clock, options } = this.#deps
    const now = clock.now()
    if (this.#handlerCalled && now >= this.#leaseEndsAt - this.#margin) {
      this.lose(new LeaseLostError('The lease ran out: it could not be renewed in time', this.#errorInfo))
    } else if (this.#startedAt > 0 && now - this.#startedAt >= options.maxHold) {
      return this.#exceedMaxHold()
    } else if (now >= this.#renewAt && !this.#renewing) {
      void this.renew()
    }
    return undefined
  }

  get #errorInfo(): { key: string } {
    return { key: this.delivery.id }
  }

  /** Renews the lease. The first renewal accepts the delivery. */
  async renew(): Promise<void> {
    const { store, worker, clock, options } = this.#deps
    const { id, fence } = this.delivery
    const { lease, unavailableAfter } = options
    const sentAt = clock.now()
    this.#renewing = true
    try {
      const state = await store.renew({ worker, id, fence }, lease, { within: unavailableAfter })
      if (state === 'held') this.#extendLease(sentAt)
      else if (state === 'lost')
        this.lose(new LeaseLostError('The job was given to another worker', this.#errorInfo))
      else this.cancel()
    } catch {
      this.#renewAt = clock.now() + Math.min(lease / 10, 500)
    } finally {
      this.#renewing = false
    }
  }

  #extendLease(sentAt: number): void {
    const { lease } = this.#deps.options
    this.#leaseEndsAt = sentAt + lease
    this.#margin = lossMargin(lease)
    this.#renewAt = sentAt + lease / 3
  }

  cancel(): void {
    this.lose(new AbortedError('The job was cancelled', this.#errorInfo))
  }

  lose(reason: SoloflightError): void {
    if (this.#reason) return
    this.#reason = reason
    this.#progressTimer?.cancel()
    this.#deps.context.run(() => this.#abortController?.abort(reason))
  }

  /** Accepts the delivery, and reads a payload that was too large for the message. */
  async accept(): Promise<void> {
    await this.renew()
    if (this.lost || this.#payload !== undefined) return
    const { store, worker, options } = this.#deps
    const { id, fence } = this.delivery
    const within = options.unavailableAfter
    this.#payload = await store.readPayload({ worker, id, fence }, { within }).catch(() => undefined)
    if (this.#payload === undefined)
      this.lose(new LeaseLostError('The payload could not be read', this.#errorInfo))
  }

  /** Calls the handler. Never rejects. */
  async run(handler: Handler): Promise<AttemptResult> {
    this.#handlerCalled = true
    this.#startedAt = this.#deps.clock.now()
    try {
      const payload = decodePayload(this.#payload ?? '')
      return this.#valueResult(
        await this.#deps.context.run(() => handler(payload, this.#runningJob(payload))),
      )
    } catch (error) {
      return this.#failureResult(error)
    } finally {
      this.#startedAt = 0
      this.#progressTimer?.cancel()
    }
  }

  #valueResult(value: unknown): AttemptResult {
    const { codec, ttl } = this.#deps.options
    const mine = isDedupeId(this.delivery.id) ? ttl : 0
    const bytes = encodeWith(codec, value)
    return { kind: 'value', bytes, ttl: this.jobOptions.ttl ?? Math.round(mine), delay: 0 }
  }

  #failureResult(error: unknown): AttemptResult {
    const { options } = this.#deps
    const {
      attempts = options.attempts,
      errorTtl = options.errorTtl,
      backoff = options.backoff,
    } = this.jobOptions
    // A value that cannot be encoded cannot be encoded by the next attempt either.
    if (this.number < attempts && !(error instanceof CodecError)) {
      return { kind: 'retry', bytes: NO_BYTES, ttl: 0, delay: this.#backoffDelay(backoff, error), error }
    }
    return {
      kind: 'error',
      bytes: encodeFailure(this.exposedFailure(error)),
      ttl: Math.round(errorTtl),
      delay: 0,
      error,
    }
  }

  /** The part of an error that leaves the process. */
  exposedFailure(error: unknown): RemoteFailure {
    return exposedFailure(this.#deps.options.exposeError, this.#deps.context, error)
  }

  /** The result to report when the connection is lost each time the original result is sent. */
  tooLargeResult(cause: SoloflightError): AttemptResult {
    const message = `The result cannot be carried: ${cause.message}`
    return this.#failureResult(new CodecError(message, { ...this.#errorInfo, cause }))
  }

  #backoffDelay(backoff: Parameters<typeof backoffDelay>[0], error: unknown): number {
    const { context } = this.#deps
    const hook = typeof backoff === 'function' ? backoff : undefined
    const asked = hook && callHook(context, 'backoff', hook, this.number, error)
    // The conversion of the returned value to a number may throw as well.
    const pause = () => backoffDelay(hook ? () => asked ?? 0 : backoff, this.number, error)
    return callHook(context, 'backoff', pause) ?? 0
  }

  /** Reports the end of the attempt to the store, after its last log lines. Returns false if the attempt was lost. */
  async finish(
    result: Pick<AttemptResult, 'kind' | 'bytes' | 'ttl' | 'delay'>,
    releasesSlot: boolean,
  ): Promise<boolean> {
    if (this.#logLines.length > 0) await this.#logWrite
    const { store, worker, options } = this.#deps
    const { id, fence } = this.delivery
    const { kind, bytes, ttl, delay } = result
    const retain = kind === 'value' ? options.retain.completed : options.retain.failed
    const outcome: AttemptOutcome = {
      worker,
      id,
      fence,
      kind,
      bytes,
      ttl,
      outcomeRetention: OUTCOME_RETENTION,
      delay,
      retain,
      releasesSlot,
    }
    return store.finish(outcome, { within: options.unavailableAfter })
  }

  #runningJob(payload: unknown): RunningJob {
    const { queue, worker } = this.#deps
    const { id, stalls, fence } = this.delivery
    const attempt = this
    return {
      id,
      queue,
      command: worker.command,
      payload,
      attempt: this.number,
      stalls,
      fence,
      get signal() {
        return attempt.signal
      },
      trace: this.jobOptions.trace,
      progress: (value) => this.#progress(value),
      log: (line) => this.#log(line),
    }
  }

  /** Sends a value to all waiters. Throws CodecError if it cannot be encoded or is too large for a message. */
  #progress(value: unknown): void {
    if (this.lost) return
    const bytes = encodeWith(this.#deps.options.codec, value)
    if (bytes.length > MESSAGE_LIMIT)
      throw new CodecError(`Progress of ${bytes.length} bytes is too large`, this.#errorInfo)
    this.#pendingProgress = bytes
    if (!this.#progressTimer) this.#flushProgress()
  }

  #flushProgress(): void {
    const bytes = this.#pendingProgress
    this.#progressTimer = undefined
    if (!bytes || this.lost) return
    this.#pendingProgress = undefined
    const { store, worker, clock, options } = this.#deps
    const { id, fence } = this.delivery
    // Best effort: the handler goes on if progress cannot be sent.
    store.publishProgress({ worker, id, fence }, bytes, { within: options.unavailableAfter }).catch(() => {})
    this.#progressTimer = clock.after(PROGRESS_INTERVAL, () => this.#flushProgress(), true)
  }

  #log(line: string): void {
    if (this.lost) return
    this.#logLines.push(String(line).slice(0, MESSAGE_LIMIT))
    this.#logWrite ??= this.#writeLog()
  }

  async #writeLog(): Promise<void> {
    const { store, worker, options } = this.#deps
    const { id, fence } = this.delivery
    // Lines that are logged in the same microtask are sent in one call.
    await Promise.resolve()
    while (this.#logLines.length > 0) {
      const lines = this.#logLines.splice(0)
      const before = this.#loggedCount
      this.#loggedCount += lines.length
      // Best effort: the handler goes on if lines cannot be logged.
      await store
        .appendLog({ worker, id, fence }, lines, before, { within: options.unavailableAfter })
        .catch(() => {})
    }
    this.#logWrite = undefined
  }
}
