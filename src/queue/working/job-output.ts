import { CodecError } from '../../errors.ts'
import { type Codec, encodeWith } from '../../kernel/codec/codec.ts'
import type { Clock } from '../../kernel/event-loop.ts'
import { ProgressThrottle } from '../../kernel/lease/progress-throttle.ts'
import { type CallLimits, MESSAGE_LIMIT } from '../../kernel/limits.ts'
import type { AttemptRef, QueueStore } from '../store/store.ts'

/**
 * Progress and log lines of an attempt. Best effort: the handler goes on if the store does not take them. Created when the
 * handler first uses it, as most never do.
 */
export class JobOutput {
  readonly #attempt: AttemptRef
  readonly #store: QueueStore
  readonly #limits: CallLimits
  readonly #codec: Codec
  readonly #progress: ProgressThrottle
  /** Log lines that are not sent yet. */
  readonly #lines: string[] = []
  /** Number of lines that were passed to the store. */
  #sentLines = 0
  /** Set while a log call is under way. One call at a time keeps the lines in order if a command is resent. */
  #logWrite: Promise<void> | undefined

  constructor(attempt: AttemptRef, store: QueueStore, limits: CallLimits, clock: Clock, codec: Codec) {
    this.#attempt = attempt
    this.#store = store
    this.#limits = limits
    this.#codec = codec
    this.#progress = new ProgressThrottle(clock, (bytes) => {
      store.publishProgress(attempt, bytes, limits).catch(() => {})
    })
  }

  /** Throws CodecError if the value cannot be encoded or is too large for a message. */
  progress(value: unknown): void {
    const bytes = encodeWith(this.#codec, value)
    if (bytes.length > MESSAGE_LIMIT)
      throw new CodecError(`Progress of ${bytes.length} bytes is too large`, { key: this.#attempt.id })
    this.#progress.push(bytes)
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
      await this.#store.appendLog(this.#attempt, lines, before, this.#limits).catch(() => {})
    }
    this.#logWrite = undefined
  }

  /** Resolves when the lines so far are written; undefined if there is nothing to wait for. */
  get logWritten(): Promise<void> | undefined {
    return this.#lines.length > 0 ? this.#logWrite : undefined
  }
}
