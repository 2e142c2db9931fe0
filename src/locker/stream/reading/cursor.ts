import type { ReadReply } from '../log/log-store.ts'
import type { LogView } from '../log/log-view.ts'

/** What a cursor comes upon. */
export interface CursorEvents {
  /** There may be something to take. */
  wake(): void
  /** The chunk that comes next is not kept any more, and others that came after it are. */
  trimmed(): void
  /** What should be there is not. */
  lost(): void
  /** The store does not answer. */
  unread(error: unknown): void
}

/** A place in a log: reads from there on when it is asked to, and holds what was read in one go. */
export class Cursor {
  /** What the record calls the log. */
  readonly log: string
  readonly view: LogView
  /** Number of the chunk that is read next. */
  position = 0
  readonly #events: CursorEvents
  #ready: Buffer[] = []
  #reading = false
  #left = false

  constructor(log: string, view: LogView, events: CursorEvents) {
    this.log = log
    this.view = view
    this.#events = events
  }

  /** Whether everything up to the end of a complete stream was taken. */
  get atEnd(): boolean {
    const { end } = this.view
    return end !== undefined && this.#ready.length === 0 && this.position >= end.count
  }

  /** The next chunk, if it was read, or is at hand. */
  take(): Buffer | undefined {
    this.view.touch()
    return this.#ready.shift() ?? this.#atHand()
  }

  #atHand(): Buffer | undefined {
    const chunk = this.view.at(this.position)
    if (chunk) this.#advance(1)
    return chunk
  }

  #advance(count: number): void {
    this.position += count
    this.view.onChange?.()
  }

  /** Takes what was read; and what is at hand besides, if that is all up to the end of a complete stream. */
  rest(): Buffer[] {
    const rest = this.#ready
    this.#ready = []
    const { end } = this.view
    if (!end) return rest
    for (let chunk = this.#atHand(); chunk; chunk = this.#atHand()) rest.push(chunk)
    return rest
  }

  /** Has the next chunk read, if there is one and it is not at hand. Says so when it is there. */
  seek(): void {
    if (this.#reading || !this.view.lacks(this.position)) return
    this.#reading = true
    const from = this.position
    this.view.read(from).then(
      (reply) => {
        this.#reading = false
        if (this.#left) return
        // Meanwhile the same may have come in a message.
        if (from === this.position) this.#received(reply)
        this.#events.wake()
      },
      (error: unknown) => {
        this.#reading = false
        if (!this.#left) this.#events.unread(error)
      },
    )
  }

  #received(reply: ReadReply): void {
    if (reply.status === 'trimmed') return this.#events.trimmed()
    if (reply.status === 'gone') return this.#events.lost()
    this.#ready = [...reply.chunks]
    this.#advance(reply.chunks.length)
    const { end } = this.view
    if (end && reply.chunks.length === 0 && this.position < end.count) this.#events.lost()
  }

  /** Nothing more is wanted of it. */
  leave(): void {
    this.#left = true
  }
}
