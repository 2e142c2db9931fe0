import { type Codec, encodeProgress } from '../../kernel/codec/codec.ts'
import { MESSAGE_LIMIT } from '../../kernel/keys.ts'
import type { Clock } from '../../kernel/time.ts'
import { ProgressThrottle } from '../../kernel/waiter.ts'
import type { AttemptRef, QueueStore } from '../store/store.ts'

/** The job that a handler is called with. */
export interface RunningJob<Payload = unknown> {
  readonly id: string
  readonly queue: string
  readonly command: string
  readonly payload: Payload
  /** The payload as stored: JSON, or '' for undefined. */
  readonly payloadText: string
  /** Number of this attempt: 1, plus the number of failed attempts. */
  readonly attempt: number
  /** Number of attempts whose worker was lost. They do not count as failed. */
  readonly stalls: number
  /**
   * Fencing token of this attempt: greater than that of every earlier attempt of the job. Pass it to the systems that the
   * handler writes to, so that they can refuse writes of an earlier attempt that still runs.
   */
  readonly fence: number
  /**
   * Aborts when the result of this attempt is no longer wanted. The reason is AbortedError if the job was cancelled or
   * removed, LeaseLostError if the lease was lost, TimeoutError if the attempt took longer than `maxHold`, ClosedError if
   * `close` ended before the attempt.
   */
  readonly signal: AbortSignal
  /** Trace context (W3C traceparent) of the submitter; link the span of the handler to it. */
  readonly trace: string | undefined
  /**
   * Sends a value to the `onProgress` of all submitters. Best effort: one value per 50 ms is sent, the latest.
   * @throws CodecError if the value cannot be encoded, or is too large for a message.
   */
  progress(value: unknown): void
  /** Appends a line to the log of the job, best effort. `queue.logs(id)` reads it. */
  log(line: string): void
  /**
   * If this attempt fails, the next one starts after `ms` at least, even if `backoff` is shorter. Infinity: there is no next one,
   * and the job has failed. The last call counts.
   * @throws TypeError unless `ms` is a number from 0.
   */
  retryAfter(ms: number): void
}

/** Processes the jobs of a command. Its result, or the error that it throws, goes to every submitter. */
export type Handler<Payload = unknown, Result = unknown> = (
  payload: Payload,
  job: RunningJob<Payload>,
) => Result | PromiseLike<Result>

/**
 * Progress and log lines of an attempt. Best effort: the handler continues if the store does not take them. Created when the
 * handler first uses it, as most never do.
 */
export class JobOutput {
  readonly #attempt: AttemptRef
  readonly #store: QueueStore
  readonly #within: number
  readonly #codec: Codec
  readonly #progress: ProgressThrottle
  /** Log lines that are not sent yet. */
  readonly #lines: string[] = []
  /** Number of lines that were passed to the store. */
  #sentLines = 0
  /** Set while a log call is under way. One call at a time keeps the lines in order if a command is resent. */
  #logWrite: Promise<void> | undefined

  constructor(attempt: AttemptRef, store: QueueStore, within: number, clock: Clock, codec: Codec) {
    this.#attempt = attempt
    this.#store = store
    this.#within = within
    this.#codec = codec
    this.#progress = new ProgressThrottle(clock, (bytes) => {
      store.publishProgress(attempt, bytes, within).catch(() => {})
    })
  }

  /** Throws CodecError if the value cannot be encoded or is too large for a message. */
  progress(value: unknown): void {
    this.#progress.push(encodeProgress(this.#codec, value, this.#attempt.id))
  }

  /** Sends no more progress. */
  stopProgress(): void {
    this.#progress.stop()
  }

  log(line: string): void {
    this.#lines.push(String(line).slice(0, MESSAGE_LIMIT))
    this.#logWrite ??= this.#writeLog()
  }

  async #writeLog(): Promise<void> {
    // Lines that are logged in the same microtask are sent in one call.
    await Promise.resolve()
    while (this.#lines.length > 0) {
      const lines = this.#lines.splice(0)
      const before = this.#sentLines
      this.#sentLines += lines.length
      await this.#store.appendLog(this.#attempt, lines, before, this.#within).catch(() => {})
    }
    this.#logWrite = undefined
  }

  /**
   * Resolves when the lines so far are written; undefined if there is nothing to wait for. Those that are on their way come
   * before what is sent next, but watchers are told of them when they are written.
   */
  get logWritten(): Promise<void> | undefined {
    return this.#lines.length > 0 || this.#store.hasWatchers ? this.#logWrite : undefined
  }
}
