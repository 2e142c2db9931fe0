import pDefer, { type DeferredPromise } from 'p-defer'
import { linesOf } from '../../policy/fields.ts'
import type { HeaderFields } from '../message.ts'
import { bufferOf, discard, type Pieces } from './body.ts'
import type { RecordedBytes } from './recorded-bytes.ts'

/** A body that is longer is read by its own client as it comes, at once. */
const LONG = 256 * 1024

/**
 * A body that is read once: by whoever collects it for all, and beside that, as it comes, by one reader. The reader
 * receives the end when it is released, so that nobody has the whole of an answer before it is kept; and beyond what was
 * to be collected it reads the rest itself, at its own pace.
 */
export class Recording implements AsyncIterableIterator<Buffer> {
  readonly #source: Pieces
  readonly #expected: number | undefined
  readonly #budget: RecordedBytes
  /** Bytes of it that are counted in the budget. */
  #held = 0
  /** Whether there was room for all that came. */
  fits = true
  /** Whether somebody reads it as it comes, or will. */
  #hasReader = false
  #iterator: AsyncIterator<Uint8Array | string> | undefined
  /** What was collected; the reader has had the first `#given` of it. */
  readonly #chunks: Buffer[] = []
  #given = 0
  #size = 0
  #state: 'collecting' | 'over' | 'ended' = 'collecting'
  #failure: { error: unknown } | undefined
  #released = false
  #gone = false
  /** The reader waits for something to change. */
  #change: DeferredPromise<void> | undefined
  /** What collects it has asked for a piece. */
  #pulling = false
  readonly #stopped: DeferredPromise<undefined> = pDefer()

  /** `expected`: how many bytes there are to be; another number is a failure. */
  constructor(source: Pieces, expected: number | undefined, budget: RecordedBytes) {
    this.#source = source
    this.#expected = expected
    this.#budget = budget
  }

  /**
   * All of it; or undefined when it has more than `max` bytes, or more than there is room for, or was stopped. Rejects when
   * it breaks off. `long` is called when it turns out to be long.
   */
  collect(max: number, long: () => void): Promise<Buffer | undefined> {
    return Promise.race([this.#collect(max, long), this.#stopped.promise])
  }

  async #collect(max: number, long: () => void): Promise<Buffer | undefined> {
    try {
      while (this.fits && this.#size <= max && this.#state === 'collecting') {
        this.#pulling = true
        const chunk = await this.#pull()
        if (!chunk) return this.#whole()
        this.#pulling = false
        this.#keep(chunk)
        if (this.#size > LONG) long()
      }
    } finally {
      this.#pulling = false
      if (this.#state === 'collecting') this.#state = 'over'
      this.#changed()
      // What was not recorded to its end has a reader yet to come, who may be slow: of each, so much is not counted then.
      if (this.#gone || (this.#state === 'ended' && !this.#hasReader)) this.#free()
      else this.#free(LONG)
    }
    if (this.#gone) this.#letGo()
    return undefined
  }

  /** All in one piece, of which the reader has what is left for it. */
  #whole(): Buffer {
    const whole = Buffer.concat(this.#chunks, this.#size)
    let at = 0
    for (const [index, { length }] of this.#chunks.entries()) {
      this.#chunks[index] = whole.subarray(at, at + length)
      at += length
    }
    return whole
  }

  /** For all, if there is room; for the reader in any case, also what was asked for before it was stopped. */
  #keep(chunk: Buffer): void {
    this.fits = this.#budget.take(chunk.length, this.#size > LONG)
    if (this.fits) this.#held += chunk.length
    if (this.#state !== 'ended') this.#chunks.push(chunk)
    this.#changed()
  }

  /** It will be read as it comes. */
  attach(): void {
    this.#hasReader = true
  }

  /** So many bytes of it are not counted any more. */
  #free(bytes: number = this.#held): void {
    const given = Math.min(bytes, this.#held)
    this.#budget.give(given)
    this.#held -= given
  }

  /** Collects it no longer: it is for the reader alone. */
  stop(): void {
    if (this.#state !== 'collecting') return
    this.#state = 'over'
    this.#released = true
    this.#stopped.resolve(undefined)
    this.#changed()
    if (this.#gone) this.#letGo()
  }

  /** The next piece, or undefined at the end. */
  async #pull(): Promise<Buffer | undefined> {
    try {
      this.#iterator ??= this.#source[Symbol.asyncIterator]()
      const { done, value } = await this.#iterator.next()
      if (done) {
        checkLength(this.#expected, this.#size)
        this.#state = 'ended'
        return undefined
      }
      const chunk = bufferOf(value)
      this.#size += chunk.length
      return chunk
    } catch (error) {
      this.#state = 'ended'
      this.#failure = { error }
      throw error
    }
  }

  /** Lets the reader have the last of it. */
  release(): void {
    this.#released = true
    this.#changed()
  }

  #changed(): void {
    this.#change?.resolve()
    this.#change = undefined
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    for (;;) {
      const free = this.#released || this.#state === 'over'
      if (this.#failure && free) {
        this.#free()
        throw this.#failure.error
      }
      if (this.#given < this.#chunks.length - (free ? 0 : 1))
        return { done: false, value: this.#chunks[this.#given++] as Buffer }
      if (this.#state === 'over' && !this.#pulling) return this.#last(await this.#pull())
      if (this.#state === 'ended' && free) return this.#last(undefined)
      this.#change ??= pDefer()
      await this.#change.promise
    }
  }

  #last(chunk: Buffer | undefined): IteratorResult<Buffer, undefined> {
    // What was recorded has been read.
    if (this.#state !== 'collecting') this.#free()
    return chunk ? { done: false, value: chunk } : { done: true, value: undefined }
  }

  /** The reader goes. What is collected for others goes on. */
  async return(): Promise<IteratorResult<Buffer, undefined>> {
    this.#gone = true
    if (this.#state === 'over') this.#letGo()
    return this.#last(undefined)
  }

  #letGo(): void {
    this.#state = 'ended'
    this.#released = true
    this.#chunks.length = 0
    this.#free()
    discard(this.#source, this.#iterator)
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

/** The length that a response says that its body has. Throws when it contradicts itself. */
export function statedLength(headers: HeaderFields): number | undefined {
  const lengths = new Set(linesOf(headers, 'content-length').map((line) => line.trim()))
  const [length] = lengths
  if (length === undefined) return undefined
  if (lengths.size > 1 || !/^\d+$/.test(length)) throw new Error('The origin sent a length that is none')
  return Number(length)
}

/** Throws when a body is not as long as it was said to be: it was cut short, or is not what it seems. */
export function checkLength(stated: number | undefined, length: number): void {
  if (stated !== undefined && stated !== length)
    throw new Error(`The origin promised a body of ${stated} bytes and sent ${length}`)
}
