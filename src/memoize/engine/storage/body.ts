import type { OriginBody } from '../message.ts'

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
