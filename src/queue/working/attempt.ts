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
import type { Clock, Timer } from '../../kernel/time/clock.ts'
import { type AsyncContext, callHook } from '../../kernel/work/user-code.ts'
import { lossMargin } from '../../locker/processor/held-lease.ts'
import type { ResolvedQueueOptions } from '../options.ts'
import {
  type AttemptOutcome,
  type Delivery,
  MESSAGE_LIMIT,
  type QueueStore,
  type WorkerRef,
} from '../store/store.ts'
import { isIdentity } from '../submitting/dedupe-id.ts'
import { type JobOptions, unpackOptions } from '../submitting/job-options.ts'
import { LINGER } from '../submitting/outcome-waits.ts'
import { decodePayload } from '../submitting/payload.ts'
import { pauseAfter } from './backoff.ts'
import type { Handler, RunningJob } from './running-job.ts'

/** What an attempt is made with. */
export interface AttemptSurroundings {
  readonly queue: string
  readonly worker: WorkerRef
  readonly store: QueueStore
  readonly clock: Clock
  readonly options: ResolvedQueueOptions
  /** In which the handler and its hooks run: that of `process`. */
  readonly context: AsyncContext
}

/** How the handler's part of an attempt ended. */
export type Result = Pick<AttemptOutcome, 'kind' | 'bytes' | 'ttl' | 'delay'> & { error?: unknown }

/** Progress is told this often at most, ms. */
const PROGRESS_EVERY = 50

const NO_BYTES = Buffer.alloc(0)

/** A job in the hands of this process, from its delivery to its end. */
export class Attempt {
  readonly delivery: Delivery
  readonly jobOptions: JobOptions
  readonly #about: AttemptSurroundings
  #payload: string | undefined
  /** Made when it is first asked for: most handlers never do, and it is dear. */
  #abort: AbortController | undefined
  #reason: SoloflightError | undefined
  /** Until when it is surely ours, by our clock. */
  #until: number
  #renewAt: number
  /** How long before that it counts as lost, ms. */
  #margin: number
  #renewing = false
  /** When the handler was called; 0 while it does not run. */
  #startedAt = 0
  /** Whether the handler was called. Before that, the store alone says whether it is ours: it is asked then. */
  #begun = false
  /** The progress that is still to be told, and when it may be. */
  #unsaid: Buffer | undefined
  #saying: Timer | undefined
  /** Lines that are still to be logged, and how many were handed to the store. */
  readonly #lines: string[] = []
  #logged = 0
  /** Set while lines are logged: one call at a time, so that they stay in order whatever is sent again. */
  #logging: Promise<void> | undefined

  constructor(delivery: Delivery, about: AttemptSurroundings) {
    this.delivery = delivery
    this.#about = about
    this.#payload = delivery.payload
    this.jobOptions = unpackOptions(delivery.options)
    const now = about.clock.now()
    this.#until = now + delivery.leaseLeft
    this.#renewAt = now + delivery.leaseLeft / 3
    this.#margin = Math.min(lossMargin(about.options.lease), delivery.leaseLeft / 4)
  }

  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController()
      if (this.#reason) this.#abort.abort(this.#reason)
    }
    return this.#abort.signal
  }

  /** Whether it is another's by now, or nobody's. */
  get lost(): boolean {
    return this.#reason !== undefined
  }

  /** Why it was lost. */
  get reason(): SoloflightError | undefined {
    return this.#reason
  }

  /** Tells apart all that is in the hands of a worker. */
  get name(): string {
    return `${this.delivery.fence} ${this.delivery.id}`
  }

  get number(): number {
    return this.delivery.failures + 1
  }

  /** Whether it may start: its lease has not run out meanwhile, and all of it is here. */
  get ready(): boolean {
    return this.#payload !== undefined && this.#about.clock.now() < this.#until - this.#margin
  }

  /** It takes longer than it may: it has failed, whatever the handler does now. */
  #overrun(): Result {
    const { maxHold } = this.#about.options
    const error = new TimeoutError(`The attempt took longer than ${maxHold} ms`, this.#key)
    this.lose(error)
    return this.#failure(error)
  }

  /** Looks after the lease: called often. Returns what is to be told of it, if it has just taken too long. */
  keep(): Result | undefined {
    if (this.lost) return undefined
    const { clock, options } = this.#about
    const now = clock.now()
    if (this.#begun && now >= this.#until - this.#margin) {
      this.lose(new LeaseLostError('The lease ran out: it could not be renewed in time', this.#key))
    } else if (this.#startedAt > 0 && now - this.#startedAt >= options.maxHold) {
      return this.#overrun()
    } else if (now >= this.#renewAt && !this.#renewing) {
      void this.renew()
    }
    return undefined
  }

  get #key(): { key: string } {
    return { key: this.delivery.id }
  }

  /** Accepts it, or extends its lease. */
  async renew(): Promise<void> {
    const { store, worker, clock, options } = this.#about
    const { id, fence } = this.delivery
    const { lease, unavailableAfter } = options
    const sentAt = clock.now()
    this.#renewing = true
    try {
      const state = await store.renew({ worker, id, fence }, lease, { within: unavailableAfter })
      if (state === 'held') this.#extend(sentAt)
      else if (state === 'lost')
        this.lose(new LeaseLostError('The job was given to another worker', this.#key))
      else this.cancel()
    } catch {
      this.#renewAt = clock.now() + Math.min(lease / 10, 500)
    } finally {
      this.#renewing = false
    }
  }

  #extend(sentAt: number): void {
    const { lease } = this.#about.options
    this.#until = sentAt + lease
    this.#margin = lossMargin(lease)
    this.#renewAt = sentAt + lease / 3
  }

  /** It was cancelled or removed. */
  cancel(): void {
    this.lose(new AbortedError('The job was cancelled', this.#key))
  }

  lose(reason: SoloflightError): void {
    if (this.#reason) return
    this.#reason = reason
    this.#saying?.cancel()
    this.#about.context.run(() => this.#abort?.abort(reason))
  }

  /** Accepts it, and reads what did not come with it. Afterwards it is ready, or lost. */
  async accept(): Promise<void> {
    await this.renew()
    if (this.lost || this.#payload !== undefined) return
    const { store, worker, options } = this.#about
    const { id, fence } = this.delivery
    const within = options.unavailableAfter
    this.#payload = await store.readPayload({ worker, id, fence }, { within }).catch(() => undefined)
    if (this.#payload === undefined) this.lose(new LeaseLostError('The payload could not be read', this.#key))
  }

  /** Runs the handler. Never rejects. */
  async run(handler: Handler): Promise<Result> {
    this.#begun = true
    this.#startedAt = this.#about.clock.now()
    try {
      const payload = decodePayload(this.#payload ?? '')
      return this.#value(await this.#about.context.run(() => handler(payload, this.#job(payload))))
    } catch (error) {
      return this.#failure(error)
    } finally {
      this.#startedAt = 0
      this.#saying?.cancel()
    }
  }

  #value(value: unknown): Result {
    const { codec, ttl } = this.#about.options
    const mine = isIdentity(this.delivery.id) ? ttl : 0
    const bytes = encodeWith(codec, value)
    return { kind: 'value', bytes, ttl: this.jobOptions.ttl ?? Math.round(mine), delay: 0 }
  }

  #failure(error: unknown): Result {
    const { options } = this.#about
    const {
      attempts = options.attempts,
      errorTtl = options.errorTtl,
      backoff = options.backoff,
    } = this.jobOptions
    // What cannot be carried cannot the next time either.
    if (this.number < attempts && !(error instanceof CodecError)) {
      return { kind: 'retry', bytes: NO_BYTES, ttl: 0, delay: this.#pause(backoff, error), error }
    }
    return {
      kind: 'error',
      bytes: encodeFailure(this.exposed(error)),
      ttl: Math.round(errorTtl),
      delay: 0,
      error,
    }
  }

  /** What of a failure leaves the process. */
  exposed(error: unknown): RemoteFailure {
    return exposedFailure(this.#about.options.exposeError, this.#about.context, error)
  }

  /** What it ends with when no connection carries its outcome. */
  uncarried(cause: SoloflightError): Result {
    const message = `The result cannot be carried: ${cause.message}`
    return this.#failure(new CodecError(message, { ...this.#key, cause }))
  }

  #pause(backoff: Parameters<typeof pauseAfter>[0], error: unknown): number {
    const { context } = this.#about
    const hook = typeof backoff === 'function' ? backoff : undefined
    const asked = hook && callHook(context, 'backoff', hook, this.number, error)
    // What it returned may be no number, and throw when it is taken for one.
    const pause = () => pauseAfter(hook ? () => asked ?? 0 : backoff, this.number, error)
    return callHook(context, 'backoff', pause) ?? 0
  }

  /** Ends it in the store, after its last lines. False: it was lost. */
  async finish(result: Pick<Result, 'kind' | 'bytes' | 'ttl' | 'delay'>, frees: boolean): Promise<boolean> {
    if (this.#lines.length > 0) await this.#logging
    const { store, worker, options } = this.#about
    const { id, fence } = this.delivery
    const { kind, bytes, ttl, delay } = result
    const retain = kind === 'value' ? options.retain.completed : options.retain.failed
    const ending: AttemptOutcome = {
      worker,
      id,
      fence,
      kind,
      bytes,
      ttl,
      outcomeRetention: LINGER,
      delay,
      retain,
      releasesSlot: frees,
    }
    return store.finish(ending, { within: options.unavailableAfter })
  }

  #job(payload: unknown): RunningJob {
    const { queue, worker } = this.#about
    const { id, stalls: stalled, fence } = this.delivery
    const attempt = this
    return {
      id,
      queue,
      command: worker.command,
      payload,
      attempt: this.number,
      stalls: stalled,
      fence,
      get signal() {
        return attempt.signal
      },
      trace: this.jobOptions.trace,
      progress: (value) => this.#progress(value),
      log: (line) => this.#log(line),
    }
  }

  /** Shows a value to all who wait. Throws CodecError when it cannot be carried or is too large for a message. */
  #progress(value: unknown): void {
    if (this.lost) return
    const bytes = encodeWith(this.#about.options.codec, value)
    if (bytes.length > MESSAGE_LIMIT)
      throw new CodecError(`Progress of ${bytes.length} bytes is too large`, this.#key)
    this.#unsaid = bytes
    if (!this.#saying) this.#say()
  }

  #say(): void {
    const bytes = this.#unsaid
    this.#saying = undefined
    if (!bytes || this.lost) return
    this.#unsaid = undefined
    const { store, worker, clock, options } = this.#about
    const { id, fence } = this.delivery
    // Progress is a courtesy: if it cannot be told, the work goes on.
    store.publishProgress({ worker, id, fence }, bytes, { within: options.unavailableAfter }).catch(() => {})
    this.#saying = clock.after(PROGRESS_EVERY, () => this.#say(), true)
  }

  #log(line: string): void {
    if (this.lost) return
    this.#lines.push(String(line).slice(0, MESSAGE_LIMIT))
    this.#logging ??= this.#writeLog()
  }

  async #writeLog(): Promise<void> {
    const { store, worker, options } = this.#about
    const { id, fence } = this.delivery
    // What is logged in one go is written together.
    await Promise.resolve()
    while (this.#lines.length > 0) {
      const lines = this.#lines.splice(0)
      const before = this.#logged
      this.#logged += lines.length
      // Best effort: if they cannot be logged, the work goes on.
      await store
        .appendLog({ worker, id, fence }, lines, before, { within: options.unavailableAfter })
        .catch(() => {})
    }
    this.#logging = undefined
  }
}
