import { encodeProgress } from '../../kernel/codec/codec.ts'
import type { JsonText } from '../../kernel/codec/json-text.ts'
import { MAX_LOG_LINES, MESSAGE_LIMIT } from '../../kernel/keys.ts'
import { AsyncContext, wallMicros } from '../../kernel/time.ts'
import type { EventReporter, ReportedAttempt } from '../events.ts'
import type { QueueContext } from '../options.ts'
import type { AttemptRef, FinishReply, Renewal } from '../store/store.ts'
import { decodePayload, unpackOptions } from '../submitting/submission.ts'
import {
  type AttemptResult,
  failureResult,
  outcomeOf,
  REQUEUE,
  type ResultSource,
  valueResult,
} from '../working/attempt-result.ts'
import { checkTakenLease } from './options.ts'
import { attemptOf, encodeToken, type TokenContent } from './token.ts'

/** Dependencies of a taken job. All of a queue share them. */
export interface TakenJobDeps {
  /** Throws ClosedError after `close`. */
  open(): QueueContext
  readonly events: EventReporter
  /** A job is due in `ms`. */
  dueIn(ms: number): void
}

/** What a delivery says beside the token. */
export interface TakenContent {
  /** Options of the submission, as stored. */
  readonly options: string
  /** As stored; '' stands for undefined. */
  readonly payload: string
}

/**
 * A job that is held by its token, in whichever process, until its lease ends. Nobody renews the lease but the caller of
 * `renew`. When it ends the job is given to another taker or worker, and counts as stalled.
 *
 * All methods reject with UnavailableError if Redis does not answer, and with ClosedError after `close`. They may then be
 * called again, here or in another process.
 */
export class TakenJob<Payload = unknown, Result = unknown> {
  readonly id: string
  readonly command: string
  /** Number of this attempt: 1, plus the number of failed attempts. */
  readonly attempt: number
  /** Greater than that of every earlier attempt of the job: see {@link RunningJob.fence}. */
  readonly fence: number
  /** The payload as stored: JSON, or '' for undefined. Undefined if only the token is known. */
  readonly payloadText: string | undefined
  readonly #deps: TakenJobDeps
  readonly #token: TokenContent
  /** Of the submission, as stored; undefined if they must be read from the store. */
  readonly #options: string | undefined

  /** @internal */
  constructor(token: TokenContent, deps: TakenJobDeps, content?: TakenContent) {
    this.id = token.id
    this.command = token.command
    this.attempt = token.attempt
    this.fence = token.fence
    this.payloadText = content?.payload
    this.#deps = deps
    this.#token = token
    this.#options = content?.options ?? token.options
  }

  /** Names the job for {@link RedisQueue.taken}. It is a secret: anyone who has it can finish the job. */
  get token(): string {
    return encodeToken(this.#token)
  }

  /** The attempt as held by its token. */
  get #held(): AttemptRef {
    return attemptOf(this.#token)
  }

  /** Largest number of attempts, from 1; undefined if only the token is known. @throws ClosedError */
  get attempts(): number | undefined {
    if (this.#options === undefined) return undefined
    return unpackOptions(this.#options).attempts ?? this.#deps.open().options.attempts
  }

  /** The payload, a new value each time; undefined if only the token is known. @throws CodecError if it is not JSON. */
  get payload(): Payload {
    return decodePayload(this.payloadText ?? '') as Payload
  }

  /**
   * Extends the lease: it ends `lease` ms from now. 'lost': another taker or worker has the job, or it was given back.
   * 'cancelled': the job has ended.
   * @throws TypeError
   */
  async renew(lease?: number): Promise<Renewal> {
    const { store, within, options } = this.#deps.open()
    const ms = lease ?? options.lease
    checkTakenLease('lease', ms)
    const renewal = await store.renew(this.#held, Math.ceil(ms), within)
    if (renewal === 'held') this.#deps.dueIn(ms)
    return renewal
  }

  /**
   * Ends the job with a result, for all of its submitters. Resolves with false if it is not held any more, and with true again
   * if the call is repeated with the same result.
   * @throws CodecError if the result cannot be encoded: the job is still held then.
   */
  async complete(result: Result | JsonText): Promise<boolean> {
    const source = await this.#source()
    return source !== undefined && (await this.#end(source, valueResult(source, result))) !== 'lost'
  }

  /**
   * Ends the attempt with a failure. The job is retried by its `attempts` and `backoff`; with `retry: false` it fails without a
   * further attempt. Resolves with false if it is not held any more, and with true again if the call is repeated.
   */
  async fail(error: unknown, { retry = true }: { retry?: boolean } = {}): Promise<boolean> {
    return (await this.endWith(error, retry)) !== 'lost'
  }

  /** As {@link fail}, and tells whether the call is a repetition. @internal */
  async endWith(error: unknown, retry: boolean): Promise<FinishReply> {
    const source = await this.#source()
    if (!source) return 'lost'
    const jobOptions = retry ? source.jobOptions : { ...source.jobOptions, attempts: 1 }
    return this.#end(source, failureResult({ ...source, jobOptions }, error))
  }

  /** Gives the job back at once, for another taker or worker. The attempt does not count. False if it is not held any more. */
  async release(): Promise<boolean> {
    return (await this.giveBack()) !== 'lost'
  }

  /** As {@link release}, and tells whether the call is a repetition. @internal */
  async giveBack(): Promise<FinishReply> {
    const { store, within, options } = this.#deps.open()
    return await store.finish(outcomeOf(this.#held, REQUEUE, options, false), within)
  }

  /**
   * Sends a value to the `onProgress` of all submitters. Does nothing if the job is not held any more.
   * @throws CodecError if the value cannot be encoded, or is too large for a message.
   */
  async progress(value: unknown): Promise<void> {
    const { store, within, options } = this.#deps.open()
    await store.publishProgress(this.#held, encodeProgress(options.codec, value, this.id), within)
  }

  /** Appends lines to the log of the job, at most 1,000. Does nothing if the job is not held any more. */
  async log(...lines: string[]): Promise<void> {
    const { store, within } = this.#deps.open()
    const cut = lines.slice(-MAX_LOG_LINES).map((line) => String(line).slice(0, MESSAGE_LIMIT))
    if (cut.length > 0) await store.appendLog(this.#held, cut, undefined, within)
  }

  /** What the result of this attempt depends on; undefined: there is no such job. */
  async #source(): Promise<(ResultSource & ReportedAttempt) | undefined> {
    const { store, within, options } = this.#deps.open()
    // The hooks of the queue are called in the context of the caller.
    const context = new AsyncContext()
    const stored = this.#options ?? (await store.snapshot(this.id, within))?.options
    if (stored === undefined) return undefined
    const jobOptions = unpackOptions(stored)
    const { id, command, fence, attempt: number } = this
    return { id, command, number, jobOptions, options, context, delivery: { id, fence } }
  }

  async #end(source: ResultSource & ReportedAttempt, result: AttemptResult): Promise<FinishReply> {
    const { store, within, options, clock } = this.#deps.open()
    const reply = await store.finish(outcomeOf(this.#held, result, options, false), within)
    // A repetition is told once more that it was accepted. Its event was emitted the first time.
    if (reply !== 'accepted') return reply
    // A fence tells when it was made, unless the server's clock was set back since.
    this.#deps.events.ended(source, result, Math.max(0, (wallMicros(clock.now()) - this.fence) / 1000))
    if (result.kind === 'retry') this.#deps.dueIn(result.delay)
    return reply
  }
}
