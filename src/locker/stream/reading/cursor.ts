import type { ReadReply } from '../log/log-store.ts'
import type { LogView } from '../log/log-view.ts'

/** Events of a cursor. */
export interface CursorEvents {
  /** There may be a chunk to take. */
  onChange(): void
  /** The next chunk was trimmed. */
  onTrimmed(): void
  /** The log does not hold the next chunk, although it should. */
  onMissing(): void
  /** The store could not be read. */
  onReadFailed(error: unknown): void
}

/** A position in a log. Reads from there when {@link readAhead} is called, and buffers the chunks of one read. */
export class Cursor {
  /** Name of the log in the record. */
  readonly log: string
  readonly view: LogView
  /** Number of the next chunk to read; those before it were taken or are buffered. */
  position = 0
  readonly #events: CursorEvents
  #buffered: Buffer[] = []
  #reading = false
  #closed = false

  constructor(log: string, view: LogView, events: CursorEvents) {
    this.log = log
    this.view = view
    this.#events = events
  }

  /** Whether the stream is complete and all its chunks were taken. */
  get atEnd(): boolean {
    const { end } = this.view
    return end !== undefined && this.#buffered.length === 0 && this.position >= end.count
  }

  /** The next chunk, if it is buffered here or in the view. */
  take(): Buffer | undefined {
    this.view.retain()
    return this.#buffered.shift() ?? this.#takeFromTail()
  }

  #takeFromTail(): Buffer | undefined {
    const chunk = this.view.chunkAt(this.position)
    if (chunk) this.#advance(1)
    return chunk
  }

  #advance(count: number): void {
    this.position += count
    this.view.onReadersChanged?.()
  }

  /** Takes all buffered chunks; of a complete stream, also those that are buffered in the view. */
  takeBuffered(): Buffer[] {
    const chunks = this.#buffered
    this.#buffered = []
    const { end } = this.view
    if (!end) return chunks
    for (let chunk = this.#takeFromTail(); chunk; chunk = this.#takeFromTail()) chunks.push(chunk)
    return chunks
  }

  /** Reads the next chunks, unless they will be announced. Emits an event when the read has ended. */
  readAhead(): void {
    if (this.#reading || !this.view.mustRead(this.position)) return
    this.#reading = true
    const from = this.position
    this.view.read(from).then(
      (reply) => {
        this.#reading = false
        if (this.#closed) return
        // A message may have brought the same chunks meanwhile.
        if (from === this.position) this.#received(reply)
        this.#events.onChange()
      },
      (error: unknown) => {
        this.#reading = false
        if (!this.#closed) this.#events.onReadFailed(error)
      },
    )
  }

  #received(reply: ReadReply): void {
    if (reply.status === 'trimmed') return this.#events.onTrimmed()
    if (reply.status === 'missing') return this.#events.onMissing()
    this.#buffered = [...reply.chunks]
    this.#advance(reply.chunks.length)
    const { end } = this.view
    if (end && reply.chunks.length === 0 && this.position < end.count) this.#events.onMissing()
  }

  /** Ignores the read that is under way. */
  close(): void {
    this.#closed = true
  }
}
