/**
 * Bodies of responses: how they are read, recorded for storage while they stream, and discarded.
 */

import pDefer, { type DeferredPromise } from 'p-defer'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { linesOf } from '../policy/fields.ts'
import type { HeaderFields, OriginBody } from './message.ts'

/** A body that comes piece by piece. */
export type Pieces = AsyncIterable<Uint8Array | string>

export function isStreamed(body: OriginBody): body is Pieces {
  return typeof body === 'object' && body !== null && Symbol.asyncIterator in body
}

/** The bytes of a piece, without a copy. */
export function bufferOf(piece: Uint8Array | string): Buffer {
  if (typeof piece === 'string') return Buffer.from(piece)
  return Buffer.isBuffer(piece) ? piece : Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength)
}

/** An origin's body as the body of a response. A streamed one is not read before the client reads it. */
export function toResponseBody(body: OriginBody): Buffer | AsyncIterable<Buffer> | undefined {
  if (body === null || body === undefined) return undefined
  return isStreamed(body) ? new BodyReader(body) : bufferOf(body)
}

/** Reads a streamed body. Not a generator: `return` on one that has not begun would not discard the source. */
class BodyReader implements AsyncIterableIterator<Buffer> {
  readonly #source: Pieces
  #iterator: AsyncIterator<Uint8Array | string> | undefined

  constructor(source: Pieces) {
    this.#source = source
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    this.#iterator ??= this.#source[Symbol.asyncIterator]()
    const { done = false, value } = await this.#iterator.next()
    return done ? { done, value: undefined } : { done, value: bufferOf(value) }
  }

  async return(): Promise<IteratorResult<Buffer, undefined>> {
    discard(this.#source, this.#iterator)
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

/** Methods that streams have beside iteration: `destroy` of Node, `cancel` of the web. */
type Discardable = Pieces & { destroy?: () => unknown; cancel?: () => unknown }

/**
 * Ends a body that will not be read any more, so that its producer can stop. A Node stream ends at once, even while
 * `iterator`, which reads it, waits for the next piece. Never throws.
 */
export function discard(body: OriginBody, iterator?: AsyncIterator<unknown>): void {
  if (!isStreamed(body)) return
  const { destroy, cancel } = body as Discardable
  const returned = () => (iterator ?? body[Symbol.asyncIterator]()).return?.()
  const end = destroy ?? (iterator ? returned : (cancel ?? returned))
  // No reader is left to hear of a failure.
  new Promise((resolve) => resolve(end.call(body))).catch(() => undefined)
}

/** Whether a response has no content, whatever its fields say. RFC 9110 §15.3.5, §15.3.6. */
export function hasNoContent(status: number): boolean {
  return status === 204 || status === 205
}

/** The stated length of the body. Throws when Content-Length has several values or is not a number. RFC 9110 §8.6. */
export function contentLength(headers: HeaderFields): number | undefined {
  const lengths = new Set(linesOf(headers, 'content-length').map((line) => line.trim()))
  const [length] = lengths
  if (length === undefined) return undefined
  if (lengths.size > 1 || !/^\d+$/.test(length)) throw new Error('The origin sent an invalid Content-Length')
  return Number(length)
}

/** Throws when a body does not have its stated length. */
export function checkLength(stated: number | undefined, length: number): void {
  if (stated !== undefined && stated !== length)
    throw new Error(`The origin promised a body of ${stated} bytes and sent ${length}`)
}

/** The part of the limit that long bodies may take together. */
const LONG_BODY_SHARE = 3 / 4

/** Bounds the bytes of the bodies that a cache records at once. */
export class RecordingBudget {
  readonly #limit: number
  #bytes = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Counts so many more bytes, if there is room. Long bodies, whose readers may be slow, leave a quarter to the others. */
  tryReserve(bytes: number, long: boolean): boolean {
    if (this.#bytes + bytes > (long ? LONG_BODY_SHARE * this.#limit : this.#limit)) return false
    this.#bytes += bytes
    return true
  }

  release(bytes: number): void {
    this.#bytes -= bytes
  }
}

/** A longer body streams to the request's own client at once, bytes. */
const LONG_BODY = 256 * 1024

/**
 * The states of a recording, by who reads the source:
 *
 * | state      | source is read by            | left for                                                          |
 * | ---------- | ---------------------------- | ----------------------------------------------------------------- |
 * | collecting | the collector                | done at the end; detached when too long or without room; detaching by `detach` |
 * | detaching  | the collector, for one piece | detached with that piece; done at the end                         |
 * | detached   | the reader, at its own pace  | done at the end                                                   |
 * | done       | nobody                       |                                                                   |
 *
 * When the reader leaves, collecting goes on for the others; a recording that is detaching or detached is done.
 */
type State =
  | { readonly kind: 'collecting' | 'detaching' | 'detached' }
  | { readonly kind: 'done'; readonly failure: { readonly error: unknown } | undefined }

const TRANSITIONS: Transitions<State['kind']> = {
  collecting: ['detaching', 'detached', 'done'],
  detaching: ['detached', 'done'],
  detached: ['done'],
  // A pull that was under way when the recording was closed.
  done: ['done'],
}

const COLLECTING: State = { kind: 'collecting' }
const DETACHING: State = { kind: 'detaching' }
const DETACHED: State = { kind: 'detached' }
const DONE: State = { kind: 'done', failure: undefined }

/** Why a body was not collected: it has more than `max` bytes, there is no room for it, or it was detached. */
export type NotCollected = 'too-long' | 'no-room' | 'detached'

/**
 * A streamed body that is read from its source once, collected to be stored, and read by the request's own client while it
 * streams. The reader receives the last piece only after `deliverEnd`, or once the recording is detached: no client has a
 * whole response before it is stored.
 */
export class Recording implements AsyncIterableIterator<Buffer> {
  readonly #source: Pieces
  readonly #expected: number | undefined
  readonly #budget: RecordingBudget
  #state: State = COLLECTING
  /** Set by `expectReader` and `return`. */
  #reader: 'none' | 'expected' | 'closed' = 'none'
  /** Whether the reader may receive the last piece, the end, or the failure. */
  #mayEnd = false
  #iterator: AsyncIterator<Uint8Array | string> | undefined
  /** What was collected. The reader has received the first `#readIndex` pieces. */
  readonly #chunks: Buffer[] = []
  #readIndex = 0
  #size = 0
  /** Bytes that are counted in the budget. */
  #reserved = 0
  /** Resolves what `next` waits for. */
  #wakeReader: DeferredPromise<void> | undefined
  readonly #detached: DeferredPromise<NotCollected> = pDefer()

  /** `expected`: the stated number of bytes. Another number makes the body fail. */
  constructor(source: Pieces, expected: number | undefined, budget: RecordingBudget) {
    this.#source = source
    this.#expected = expected
    this.#budget = budget
  }

  /**
   * Resolves with the whole body, or with the reason why it was not collected. Rejects when the source fails. `onLong` is
   * called when the body is longer than LONG_BODY.
   */
  collect(max: number, onLong: () => void): Promise<Buffer | NotCollected> {
    return Promise.race([this.#collect(max, onLong), this.#detached.promise])
  }

  async #collect(max: number, onLong: () => void): Promise<Buffer | NotCollected> {
    try {
      for (;;) {
        const chunk = await this.#pull()
        if (!chunk) return this.#concat()
        const hasRoom = this.#append(chunk)
        if (this.#size > LONG_BODY) onLong()
        if (this.#state.kind !== 'collecting') return 'detached'
        if (!hasRoom) return 'no-room'
        if (this.#size > max) return 'too-long'
      }
    } finally {
      this.#onCollectorEnd()
    }
  }

  /** The collector reads no further: the reader reads the rest of the source, if there is one. */
  #onCollectorEnd(): void {
    if (this.#state.kind !== 'done') this.#enter(DETACHED)
    // Its reader may be slow. So that slow readers of many bodies do not fill the budget, the first bytes of each stop
    // counting here; the rest counts until it has been read.
    const hasReader = this.#reader === 'expected' || (this.#reader === 'none' && this.#state.kind !== 'done')
    this.#releaseBudget(hasReader ? LONG_BODY : this.#reserved)
    this.#notifyReader()
    if (this.#reader === 'closed' && this.#state.kind !== 'done') this.#close()
  }

  /** Stops collecting: the rest is for the reader alone. */
  detach(): void {
    if (this.#state.kind !== 'collecting') return
    this.#enter(DETACHING)
    this.#detached.resolve('detached')
    if (this.#reader === 'closed') this.#close()
  }

  #enter(state: State): void {
    assertTransition('recording', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
    // The rest of a detached recording is for the reader alone.
    if (state.kind !== 'done') this.#mayEnd = true
    this.#notifyReader()
  }

  /** The whole body as one buffer. The pieces become parts of it, so that the bytes are held once. */
  #concat(): Buffer {
    const whole = Buffer.concat(this.#chunks, this.#size)
    let at = 0
    for (const [index, { length }] of this.#chunks.entries()) {
      this.#chunks[index] = whole.subarray(at, at + length)
      at += length
    }
    return whole
  }

  /** Adds a piece for the reader. Returns whether the budget had room for it. */
  #append(chunk: Buffer): boolean {
    const hasRoom = this.#budget.tryReserve(chunk.length, this.#size > LONG_BODY)
    if (hasRoom) this.#reserved += chunk.length
    if (this.#state.kind !== 'done') this.#chunks.push(chunk)
    this.#notifyReader()
    return hasRoom
  }

  /** A client will read it while it streams. */
  expectReader(): void {
    if (this.#reader === 'none') this.#reader = 'expected'
  }

  /** Stops counting so many bytes; all by default. */
  #releaseBudget(bytes: number = this.#reserved): void {
    const released = Math.min(bytes, this.#reserved)
    this.#budget.release(released)
    this.#reserved -= released
  }

  /** The next piece of the source, or undefined at its end. */
  async #pull(): Promise<Buffer | undefined> {
    try {
      this.#iterator ??= this.#source[Symbol.asyncIterator]()
      const { done, value } = await this.#iterator.next()
      if (done) {
        checkLength(this.#expected, this.#size)
        this.#enter(DONE)
        return undefined
      }
      const chunk = bufferOf(value)
      this.#size += chunk.length
      return chunk
    } catch (error) {
      this.#enter({ kind: 'done', failure: { error } })
      throw error
    }
  }

  /** Lets the reader receive the last piece, the end, or the failure. */
  deliverEnd(): void {
    this.#mayEnd = true
    this.#notifyReader()
  }

  #notifyReader(): void {
    this.#wakeReader?.resolve()
    this.#wakeReader = undefined
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    for (;;) {
      const state = this.#state
      if (this.#mayEnd && state.kind === 'done' && state.failure) {
        this.#releaseBudget()
        throw state.failure.error
      }
      if (this.#readIndex < this.#chunks.length - (this.#mayEnd ? 0 : 1))
        return { done: false, value: this.#chunks[this.#readIndex++] as Buffer }
      if (state.kind === 'detached') return this.#deliver(await this.#pull())
      if (this.#mayEnd && state.kind === 'done') return this.#deliver(undefined)
      this.#wakeReader ??= pDefer()
      await this.#wakeReader.promise
    }
  }

  #deliver(chunk: Buffer | undefined): IteratorResult<Buffer, undefined> {
    // All that was collected has been read.
    if (this.#state.kind !== 'collecting') this.#releaseBudget()
    return chunk ? { done: false, value: chunk } : { done: true, value: undefined }
  }

  /** The reader leaves. */
  async return(): Promise<IteratorResult<Buffer, undefined>> {
    this.#reader = 'closed'
    if (this.#state.kind === 'detaching' || this.#state.kind === 'detached') this.#close()
    return this.#deliver(undefined)
  }

  /** Nobody wants the rest: discards the source. */
  #close(): void {
    this.#enter(DONE)
    this.#chunks.length = 0
    this.#releaseBudget()
    discard(this.#source, this.#iterator)
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
