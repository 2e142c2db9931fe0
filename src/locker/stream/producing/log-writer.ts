import { assertTransition, type Transitions } from '../../../kernel/collections.ts'
import { nextTurn } from '../../../kernel/time.ts'
import { LOG_GRACE, type LogStore } from '../log/log-store.ts'
import type { LogView } from '../log/log-view.ts'

/** Backpressure starts at so many bytes or chunks that wait for the next append. */
const MAX_PENDING_BYTES = 256 * 1024
const MAX_PENDING_CHUNKS = 512

export interface LogWriterOptions {
  view: LogView
  maxBytes: number
  /** Longest silence of Redis, ms. */
  unavailableAfter: number
  /** The first append that trims the log is about to be sent: from now on no reader may join. */
  onTrim(): void
  /** The log cannot be written, or does not hold what was written. Nothing more will be. */
  onLost(cause: unknown): void
}

type State =
  /** Every chunk is appended. */
  | { readonly kind: 'idle' }
  /** Chunks are pending or being appended. `written` resolves when none is. */
  | { readonly kind: 'writing'; readonly written: Promise<void> }
  /** No further append is sent. `written` resolves when none is under way. */
  | { readonly kind: 'stopped'; readonly written: Promise<void> | undefined }

const IDLE: State = { kind: 'idle' }

/**
 * | from          | event                                         | to      |
 * | ------------- | --------------------------------------------- | ------- |
 * | idle          | a chunk is added                              | writing |
 * | writing       | every chunk is appended                       | idle    |
 * | idle, writing | `stop`, or an append failed: chunks are dropped | stopped |
 */
const TRANSITIONS: Transitions<State['kind']> = {
  idle: ['writing', 'stopped'],
  writing: ['idle', 'stopped'],
  stopped: [],
}

/**
 * Writes a log. Batches: the chunks that are added in one turn of the event loop, or while an append is under way, go into
 * one append. Passes the chunks to the readers of this process once the store has accepted them.
 */
export class LogWriter {
  readonly #options: LogWriterOptions
  readonly #logs: LogStore
  readonly #window: RetentionWindow
  /** Chunks that wait for the next append. */
  #pending: Buffer[] = []
  #pendingBytes = 0
  /** Number of chunks that were appended, or are being appended. */
  #length = 0
  /** Chunks with a smaller number were trimmed, or are about to be. */
  #trimmedBefore = 0
  /** Processes that follow the log. Set by every reply of the store. */
  #followers = 0
  #state: State = IDLE
  /** Rechecks whether the next append may trim. Set while it may not. */
  #recheckTrim: (() => void) | undefined

  constructor(options: LogWriterOptions) {
    this.#options = options
    this.#logs = options.view.logs
    this.#window = new RetentionWindow(options.maxBytes)
  }

  #enter(state: State): void {
    assertTransition('log writer', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  get #stopped(): boolean {
    return this.#state.kind === 'stopped'
  }

  /** Whether the beginning of the log is gone. */
  get trimmed(): boolean {
    return this.#trimmedBefore > 0
  }

  /** Number of chunks that were added. */
  get count(): number {
    return this.#length + this.#pending.length
  }

  /** Adds a chunk to the next append. The caller awaits {@link backpressure} before it adds another. */
  add(chunk: Buffer): void {
    if (this.#state.kind === 'stopped') return
    this.#pending.push(chunk)
    this.#pendingBytes += chunk.length
    if (this.#state.kind !== 'idle') return
    const written = new Promise<void>((turn) => nextTurn(turn)).then(() => this.#write())
    this.#enter({ kind: 'writing', written })
  }

  /** Undefined when another chunk may be added; otherwise resolves when it may. */
  backpressure(): Promise<void> | undefined {
    const full = this.#pendingBytes >= MAX_PENDING_BYTES || this.#pending.length >= MAX_PENDING_CHUNKS
    return full && this.#state.kind === 'writing' ? this.#state.written : undefined
  }

  /** Resolves when all chunks are appended, or after {@link stop} when no append is under way. */
  async flushed(): Promise<void> {
    if (this.#state.kind !== 'idle') await this.#state.written
  }

  /** Drops the pending chunks. Sends no further append. */
  stop(): void {
    if (this.#state.kind === 'stopped') return
    this.#enter({
      kind: 'stopped',
      written: this.#state.kind === 'writing' ? this.#state.written : undefined,
    })
    this.#pending = []
    this.#pendingBytes = 0
    this.#recheckTrim?.()
  }

  /** Keeps the log from expiring for `ms`. Rejects as the store does. */
  async retain(ms: number): Promise<void> {
    const { view, unavailableAfter } = this.#options
    // Before the first append there may be no log.
    const mustExist = this.#length > 0
    const { intact, followers } = await this.#logs.retain(view.name, ms, unavailableAfter)
    this.#onReply(intact || !mustExist, followers)
  }

  async #write(): Promise<void> {
    try {
      while (this.#pending.length > 0 && !this.#stopped) await this.#append(this.#takeBatch())
    } catch (error) {
      this.#fail(error)
    }
    if (!this.#stopped) this.#enter(IDLE)
  }

  /** Takes chunks for one append. It may only trim chunks that an earlier append wrote, so its size is limited. */
  #takeBatch(): Buffer[] {
    let count = 0
    let bytes = 0
    for (const { length } of this.#pending) {
      if (count > 0 && bytes + length > this.#options.maxBytes / 4) break
      bytes += length
      count++
    }
    this.#pendingBytes -= bytes
    return this.#pending.splice(0, count)
  }

  async #append(chunks: Buffer[]): Promise<void> {
    const { view, unavailableAfter } = this.#options
    for (const chunk of chunks) this.#window.add(chunk.length)
    const trimBefore = await this.#trimPosition()
    if (this.#stopped) return
    const from = this.#length
    this.#length += chunks.length
    const append = { from, chunks, trimBefore, retainFor: LOG_GRACE }
    const { intact, followers } = await this.#logs.append(view.name, append, unavailableAfter)
    this.#onReply(intact, followers)
    if (intact && !this.#stopped) view.onAppended(from, chunks, this.#length)
  }

  /**
   * Resolves to the number of the first chunk that the next append retains. While no other process follows the log, waits
   * until the foremost reader of this process has read the chunks before it.
   */
  async #trimPosition(): Promise<number> {
    const first = this.#window.first
    if (first === this.#trimmedBefore) return first
    if (this.#trimmedBefore === 0) this.#options.onTrim()
    this.#trimmedBefore = first
    const { view } = this.#options
    const wouldTrimUnread = () =>
      this.#followers === 0 &&
      view.readers.size > 0 &&
      // One that begins behind the end has read nothing.
      [...view.readers].every(({ position }) => position < first || position > this.#length)
    while (!this.#stopped && wouldTrimUnread()) {
      await new Promise<void>((recheck) => {
        this.#recheckTrim = recheck
      })
    }
    this.#recheckTrim = undefined
    return first
  }

  /** A reader of this process has joined, left or advanced. */
  onReadersChanged(): void {
    this.#recheckTrim?.()
  }

  #onReply(intact: boolean, followers: number): void {
    this.#followers = followers
    this.#recheckTrim?.()
    if (!intact) this.#fail(new Error('Written chunks are missing from the log'))
  }

  #fail(cause: unknown): void {
    if (this.#stopped) return
    this.stop()
    this.#options.onLost(cause)
  }
}

/** Granularity of the window, as a part of its size: fewer steps have to be remembered than chunks. */
const STEP = 1 / 64

/** Bytes that a chunk costs beside its own. */
const CHUNK_OVERHEAD = 16

/** Computes which of the newest chunks fit into `maxBytes`. */
export class RetentionWindow {
  readonly #maxBytes: number
  /** Numbers at which the window may begin, with the bytes of all chunks before each. */
  readonly #steps: { number: number; bytesBefore: number }[] = [{ number: 0, bytesBefore: 0 }]
  #length = 0
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Adds a chunk of this size at the end. */
  add(bytes: number): void {
    const last = this.#steps.at(-1)
    if (!last || this.#bytes - last.bytesBefore >= this.#maxBytes * STEP)
      this.#steps.push({ number: this.#length, bytesBefore: this.#bytes })
    this.#length++
    this.#bytes += bytes + CHUNK_OVERHEAD
  }

  /** Number of the first chunk in the window; 0 while all chunks fit. The window always holds the last step. */
  get first(): number {
    while (this.#steps.length > 1 && this.#bytes - (this.#steps[0]?.bytesBefore ?? 0) > this.#maxBytes)
      this.#steps.shift()
    return this.#steps[0]?.number ?? 0
  }
}
