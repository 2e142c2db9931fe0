import pDefer, { type DeferredPromise } from 'p-defer'
import { linesOf } from '../../policy/fields.ts'
import type { HeaderFields } from '../message.ts'
import { bufferOf, discard, type Pieces } from './body.ts'
import type { RecordingBudget } from './recorded-bytes.ts'

/** A longer body streams to the request's own client at once, bytes. */
const LONG_BODY = 256 * 1024

/**
 * A streamed body that is read from its source once, collected to be stored, and read by the request's own client while it
 * streams. The reader receives the last piece only after `deliverEnd`: no client has a whole response before it is stored.
 * When collecting ends early (the body is too long or too slow, there is no room, the claim is gone), the recording is
 * detached: the reader reads the rest from the source at its own pace.
 */
export class Recording implements AsyncIterableIterator<Buffer> {
  readonly #source: Pieces
  readonly #expected: number | undefined
  readonly #budget: RecordingBudget
  /** Bytes that are counted in the budget. */
  #reserved = 0
  /** Whether the budget had room for all that was collected. */
  hasRoom = true
  /** Whether a client reads it, or will. */
  #hasReader = false
  #iterator: AsyncIterator<Uint8Array | string> | undefined
  /** What was collected. The reader has received the first `#readIndex` pieces. */
  readonly #chunks: Buffer[] = []
  #readIndex = 0
  #size = 0
  #state: 'collecting' | 'detached' | 'done' = 'collecting'
  #failure: { error: unknown } | undefined
  #mayEnd = false
  #readerClosed = false
  /** Resolves what `next` waits for. */
  #wakeReader: DeferredPromise<void> | undefined
  /** Whether `#collect` waits for a piece of the source. */
  #pulling = false
  readonly #detached: DeferredPromise<undefined> = pDefer()

  /** `expected`: the stated number of bytes. Another number makes the body fail. */
  constructor(source: Pieces, expected: number | undefined, budget: RecordingBudget) {
    this.#source = source
    this.#expected = expected
    this.#budget = budget
  }

  /**
   * Resolves with the whole body; with undefined when it has more than `max` bytes or more than there is room for, or when
   * it was detached. Rejects when the source fails. `onLong` is called when the body is longer than LONG_BODY.
   */
  collect(max: number, onLong: () => void): Promise<Buffer | undefined> {
    return Promise.race([this.#collect(max, onLong), this.#detached.promise])
  }

  async #collect(max: number, onLong: () => void): Promise<Buffer | undefined> {
    try {
      while (this.hasRoom && this.#size <= max && this.#state === 'collecting') {
        this.#pulling = true
        const chunk = await this.#pull()
        if (!chunk) return this.#concat()
        this.#pulling = false
        this.#append(chunk)
        if (this.#size > LONG_BODY) onLong()
      }
    } finally {
      this.#pulling = false
      if (this.#state === 'collecting') this.#state = 'detached'
      this.#notifyReader()
      // Its reader may be slow. So that slow readers of many bodies do not fill the budget, the first bytes of each stop
      // counting here; the rest counts until it has been read.
      if (this.#readerClosed || (this.#state === 'done' && !this.#hasReader)) this.#releaseBudget()
      else this.#releaseBudget(LONG_BODY)
    }
    if (this.#readerClosed) this.#close()
    return undefined
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

  /** Adds a piece. The reader receives it even if there is no room in the budget, or the recording was detached. */
  #append(chunk: Buffer): void {
    this.hasRoom = this.#budget.tryReserve(chunk.length, this.#size > LONG_BODY)
    if (this.hasRoom) this.#reserved += chunk.length
    if (this.#state !== 'done') this.#chunks.push(chunk)
    this.#notifyReader()
  }

  /** A client will read it while it streams. */
  expectReader(): void {
    this.#hasReader = true
  }

  /** Stops counting so many bytes; all by default. */
  #releaseBudget(bytes: number = this.#reserved): void {
    const released = Math.min(bytes, this.#reserved)
    this.#budget.release(released)
    this.#reserved -= released
  }

  /** Stops collecting: the rest is for the reader alone. */
  detach(): void {
    if (this.#state !== 'collecting') return
    this.#state = 'detached'
    this.#mayEnd = true
    this.#detached.resolve(undefined)
    this.#notifyReader()
    if (this.#readerClosed) this.#close()
  }

  /** The next piece of the source, or undefined at its end. */
  async #pull(): Promise<Buffer | undefined> {
    try {
      this.#iterator ??= this.#source[Symbol.asyncIterator]()
      const { done, value } = await this.#iterator.next()
      if (done) {
        checkLength(this.#expected, this.#size)
        this.#state = 'done'
        return undefined
      }
      const chunk = bufferOf(value)
      this.#size += chunk.length
      return chunk
    } catch (error) {
      this.#state = 'done'
      this.#failure = { error }
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
      const mayEnd = this.#mayEnd || this.#state === 'detached'
      if (this.#failure && mayEnd) {
        this.#releaseBudget()
        throw this.#failure.error
      }
      if (this.#readIndex < this.#chunks.length - (mayEnd ? 0 : 1))
        return { done: false, value: this.#chunks[this.#readIndex++] as Buffer }
      if (this.#state === 'detached' && !this.#pulling) return this.#end(await this.#pull())
      if (this.#state === 'done' && mayEnd) return this.#end(undefined)
      this.#wakeReader ??= pDefer()
      await this.#wakeReader.promise
    }
  }

  #end(chunk: Buffer | undefined): IteratorResult<Buffer, undefined> {
    // All that was collected has been read.
    if (this.#state !== 'collecting') this.#releaseBudget()
    return chunk ? { done: false, value: chunk } : { done: true, value: undefined }
  }

  /** The reader leaves. Collecting goes on. */
  async return(): Promise<IteratorResult<Buffer, undefined>> {
    this.#readerClosed = true
    if (this.#state === 'detached') this.#close()
    return this.#end(undefined)
  }

  /** Nobody wants the rest: discards the source. */
  #close(): void {
    this.#state = 'done'
    this.#mayEnd = true
    this.#chunks.length = 0
    this.#releaseBudget()
    discard(this.#source, this.#iterator)
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

/** The stated length of the body. Throws when Content-Length has several values or is not a number. RFC 9110 §8.6. */
export function contentLength(headers: HeaderFields): number | undefined {
  const lengths = new Set(linesOf(headers, 'content-length').map((line) => line.trim()))
  const [length] = lengths
  if (length === undefined) return undefined
  if (lengths.size > 1 || !/^\d+$/.test(length)) throw new Error('The origin sent a length that is none')
  return Number(length)
}

/** Throws when a body does not have its stated length. */
export function checkLength(stated: number | undefined, length: number): void {
  if (stated !== undefined && stated !== length)
    throw new Error(`The origin promised a body of ${stated} bytes and sent ${length}`)
}
