import type { OriginBody } from '../message.ts'

/** A body that comes piece by piece. */
export type Pieces = AsyncIterable<Uint8Array | string>

export function inPieces(body: OriginBody): body is Pieces {
  return typeof body === 'object' && body !== null && Symbol.asyncIterator in body
}

/** The bytes of a piece, without copying them. */
export function bufferOf(piece: Uint8Array | string): Buffer {
  if (typeof piece === 'string') return Buffer.from(piece)
  return Buffer.isBuffer(piece) ? piece : Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength)
}

/** A body as an answer carries it. Nothing of it is read before the answer's reader does. */
export function bodyOf(body: OriginBody): Buffer | AsyncIterable<Buffer> | undefined {
  if (body === null || body === undefined) return undefined
  return inPieces(body) ? new Reading(body) : bufferOf(body)
}

/** Reads a body. Not a generator: one that is ended before it began would not let go of what is behind it. */
class Reading implements AsyncIterableIterator<Buffer> {
  readonly #body: Pieces
  #iterator: AsyncIterator<Uint8Array | string> | undefined

  constructor(body: Pieces) {
    this.#body = body
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    this.#iterator ??= this.#body[Symbol.asyncIterator]()
    const { done = false, value } = await this.#iterator.next()
    return done ? { done, value: undefined } : { done, value: bufferOf(value) }
  }

  async return(): Promise<IteratorResult<Buffer, undefined>> {
    discard(this.#body, this.#iterator)
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

/** What some bodies can do beside being read: streams of Node, and of the web. */
type Endable = Pieces & { destroy?: () => unknown; cancel?: () => unknown }

/**
 * Lets go of a body that nobody will read any more, so that what produces it can stop: at once where that can be, even
 * while `iterator`, which reads it, waits for the next piece. Never throws.
 */
export function discard(body: OriginBody, iterator?: AsyncIterator<unknown>): void {
  if (!inPieces(body)) return
  const { destroy, cancel } = body as Endable
  const returned = () => (iterator ?? body[Symbol.asyncIterator]()).return?.()
  const end = destroy ?? (iterator ? returned : (cancel ?? returned))
  // A failure to let go is nobody's concern any more.
  new Promise((resolve) => resolve(end.call(body))).catch(() => undefined)
}
