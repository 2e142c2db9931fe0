import { remoteError } from '../../../kernel/codec/failure.ts'
import type { WaitNode } from '../../../kernel/work-scheduler.ts'
import type { ReadReply } from '../log/log-store.ts'
import type { LogReader, LogView } from '../log/log-view.ts'
import type { Interruption } from '../stream-record.ts'

/** What a reader returns behind the last chunk. */
export const END: IteratorReturnResult<undefined> = { done: true, value: undefined }

/** Why a cursor cannot go on. Its owner closes it. */
export type CursorFailure =
  | { readonly kind: 'trimmed' }
  /** The log does not hold the next chunk, although it should. */
  | { readonly kind: 'missing' }
  /** The store could not be read. */
  | { readonly kind: 'unreadable'; readonly error: unknown }
  /** The log will never be complete. */
  | { readonly kind: 'interrupted'; readonly interruption: Interruption }

/**
 * A position in a log. Reads from there when {@link readAhead} is called, and buffers the chunks of one read.
 *
 *     idle ── readAhead ──> reading ── reply ──> idle
 *     idle, reading ── close ──> closed
 */
export class Cursor implements LogReader {
  /** Name of the log in the record. */
  readonly log: string
  readonly view: LogView
  readonly #onChange: (failure?: CursorFailure) => void
  #state: 'idle' | 'reading' | 'closed' = 'idle'
  /** Number of the next chunk to read; those before it were taken or are buffered. */
  #position: number
  #buffered: Buffer[] = []

  /** Calls `onChange` when there may be a chunk to take, the end, or a failure. `from`: number of the first chunk to take. */
  constructor(log: string, view: LogView, onChange: (failure?: CursorFailure) => void, from = 0) {
    this.log = log
    this.view = view
    this.#onChange = onChange
    this.#position = from
    view.join(this)
  }

  get position(): number {
    return this.#position
  }

  /** The wait-for edge of its reader, while that waits for a producer in this process. */
  get waitNode(): WaitNode | undefined {
    return this.view.waitNodeFor(this.#position)
  }

  /** Whether the end of the stream is known. */
  get isComplete(): boolean {
    return this.view.state.kind === 'finished'
  }

  /** Whether the stream is complete and all its chunks were taken. */
  get atEnd(): boolean {
    const { state } = this.view
    return state.kind === 'finished' && this.#buffered.length === 0 && this.#position >= state.end.count
  }

  /** The result behind the last chunk of the stream of `key`. @throws RemoteError if the stream has failed. */
  end(key: string): IteratorReturnResult<undefined> {
    const { state } = this.view
    if (state.kind === 'finished' && state.end.failure)
      throw remoteError(state.end.failure, key, state.original)
    return END
  }

  /** Whether it is known if there is a next chunk: otherwise it must be read. */
  get isCaughtUp(): boolean {
    if (this.#buffered.length > 0 || this.view.chunkAt(this.#position)) return true
    return this.atEnd || !this.view.mustRead(this.#position)
  }

  /** The next chunk, if it is buffered here or in the view. */
  take(): Buffer | undefined {
    this.view.retain()
    return this.#buffered.shift() ?? this.#takeFromView()
  }

  #takeFromView(): Buffer | undefined {
    const chunk = this.view.chunkAt(this.#position)
    if (chunk) this.#advance(1)
    return chunk
  }

  #advance(count: number): void {
    this.#position += count
    this.view.readerAdvanced()
  }

  /** Buffers the rest of a complete stream as far as the view holds it. Returns whether that is all of it. */
  bufferRest(): boolean {
    const { state } = this.view
    if (state.kind !== 'finished') return false
    for (let chunk = this.#takeFromView(); chunk; chunk = this.#takeFromView()) this.#buffered.push(chunk)
    return this.#position >= state.end.count
  }

  /** Takes all buffered chunks; of a complete stream, also those that are buffered in the view. */
  takeBuffered(): Buffer[] {
    this.bufferRest()
    const chunks = this.#buffered
    this.#buffered = []
    return chunks
  }

  /** Reads the next chunks, unless they will be announced. `onChange` is called when the read has ended. */
  readAhead(): void {
    if (this.#state !== 'idle' || !this.view.mustRead(this.#position)) return
    this.#state = 'reading'
    const from = this.#position
    this.view.read(from).then(
      (reply) => this.#onRead(reply, from),
      (error: unknown) => this.#onRead({ status: 'unreadable', error }, from),
    )
  }

  #onRead(reply: ReadReply | { status: 'unreadable'; error: unknown }, from: number): void {
    if (this.#state === 'closed') return
    this.#state = 'idle'
    if (reply.status === 'unreadable') return this.#onChange({ kind: 'unreadable', error: reply.error })
    // A message may have brought the same chunks meanwhile.
    this.#onChange(from === this.#position ? this.#accept(reply) : undefined)
  }

  #accept(reply: ReadReply): CursorFailure | undefined {
    if (reply.status !== 'read') return { kind: reply.status }
    this.#buffered = [...reply.chunks]
    this.#advance(reply.chunks.length)
    const { state } = this.view
    const incomplete = state.kind === 'finished' && this.#position < state.end.count
    return incomplete && reply.chunks.length === 0 ? { kind: 'missing' } : undefined
  }

  onLogChanged(): void {
    if (this.#state === 'closed') return
    const { state } = this.view
    this.#onChange(state.kind === 'interrupted' ? state : undefined)
  }

  /** Leaves the log. Ignores the read that is under way. */
  close(): void {
    this.#state = 'closed'
    this.view.leave(this)
  }
}
