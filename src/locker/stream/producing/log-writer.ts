import { nextTurn } from '../../../kernel/time/timers.ts'
import type { LogStore } from '../log/log-store.ts'
import { LOG_GRACE } from '../log/log-store.ts'
import type { LogView } from '../log/log-view.ts'
import { Window } from './retention-window.ts'

/** Bytes and chunks that wait to be written at most, beside those that are being written. */
const AHEAD_BYTES = 256 * 1024
const AHEAD_CHUNKS = 512

export interface LogWriterOptions {
  view: LogView
  maxBytes: number
  /** How long Redis may be silent, ms. */
  within: number
  /** Its beginning is about to be forgotten: nobody may join any more. */
  onOverflow(): void
  /** It is not what it should be any more, or cannot be written. */
  onLost(cause: unknown): void
}

/**
 * Writes a log: what comes in one turn of the event loop, or while an append is under way, goes out as one append. What
 * has been accepted is shown to the readers of this process.
 */
export class LogWriter {
  readonly #options: LogWriterOptions
  readonly #logs: LogStore
  readonly #window: Window
  #waiting: Buffer[] = []
  #waitingBytes = 0
  /** Chunks written, and the first that is kept. */
  #length = 0
  #first = 0
  /** Processes that follow it, as the last reply said. */
  followers = 0
  /** Resolves when nothing waits to be written any more. */
  #writing: Promise<void> | undefined
  #stopped = false
  /** Resumes what waits for the readers of this process. */
  #resume: (() => void) | undefined

  constructor(options: LogWriterOptions) {
    this.#options = options
    this.#logs = options.view.logs
    this.#window = new Window(options.maxBytes)
  }

  /** Whether the beginning is gone. */
  get overflown(): boolean {
    return this.#first > 0
  }

  /** Chunks added so far. */
  get count(): number {
    return this.#length + this.#waiting.length
  }

  /** Takes a chunk, to be written soon. Whoever adds waits for {@link room} before the next. */
  add(chunk: Buffer): void {
    this.#waiting.push(chunk)
    this.#waitingBytes += chunk.length
    this.#writing ??= new Promise<void>((turn) => nextTurn(turn)).then(() => this.#write())
  }

  /** Undefined when there is room for one more; else resolves when there is. */
  room(): Promise<void> | undefined {
    const full = this.#waitingBytes >= AHEAD_BYTES || this.#waiting.length >= AHEAD_CHUNKS
    return full && !this.#stopped ? this.#writing : undefined
  }

  /** Resolves when all is written, or nothing more will be. */
  async flushed(): Promise<void> {
    while (this.#writing) await this.#writing
  }

  /** Nothing more is written. */
  stop(): void {
    this.#stopped = true
    this.#waiting = []
    this.#waitingBytes = 0
    this.#resume?.()
  }

  /** Keeps the log for so long at least, ms. Rejects as the store does. */
  async keep(ms: number): Promise<void> {
    const { view, within } = this.#options
    const begun = this.#length > 0
    const { kept, followers } = await this.#logs.keep(view.name, ms, within)
    this.#heard(kept || !begun, followers)
  }

  async #write(): Promise<void> {
    try {
      while (this.#waiting.length > 0 && !this.#stopped) await this.#append(this.#take())
    } catch (error) {
      this.#lose(error)
    } finally {
      this.#writing = undefined
    }
  }

  /** As many as go out at once: what is trimmed for them must have gone out before. */
  #take(): Buffer[] {
    let count = 0
    let bytes = 0
    for (const { length } of this.#waiting) {
      if (count > 0 && bytes + length > this.#options.maxBytes / 4) break
      bytes += length
      count++
    }
    this.#waitingBytes -= bytes
    return this.#waiting.splice(0, count)
  }

  async #append(chunks: Buffer[]): Promise<void> {
    const { view, within } = this.#options
    for (const chunk of chunks) this.#window.add(chunk.length)
    const first = await this.#firstToKeep()
    if (this.#stopped) return
    const from = this.#length
    this.#length += chunks.length
    const append = { from, chunks, first, keep: LOG_GRACE }
    const { kept, followers } = await this.#logs.append(view.name, append, within)
    this.#heard(kept, followers)
    if (kept && !this.#stopped) view.appended(from, chunks, this.#length)
  }

  /** The window moves over what the foremost reader has yet to read only if other processes read as well. */
  async #firstToKeep(): Promise<number> {
    const first = this.#window.first
    if (first === this.#first) return first
    if (this.#first === 0) this.#options.onOverflow()
    this.#first = first
    const { view } = this.#options
    const held = () =>
      this.followers === 0 &&
      view.readers.size > 0 &&
      [...view.readers].every(({ position }) => position < first)
    while (!this.#stopped && held()) {
      await new Promise<void>((resume) => {
        this.#resume = resume
      })
    }
    this.#resume = undefined
    return first
  }

  /** A reader of this process has come, gone, or gone on. */
  readersChanged(): void {
    this.#resume?.()
  }

  #heard(kept: boolean, followers: number): void {
    this.followers = followers
    this.#resume?.()
    if (!kept) this.#lose(new Error('What was written is not there any more'))
  }

  #lose(cause: unknown): void {
    if (this.#stopped) return
    this.stop()
    this.#options.onLost(cause)
  }
}
