import { Duplex, Readable } from 'node:stream'
import { fromRawHeaders } from '../../engine/index.ts'
import type { HeaderFields } from '../../engine/message.ts'

/** The head of a response as a client would receive it. */
export interface ResponseHead {
  status: number
  statusText: string
  headers: HeaderFields
}

const END_OF_HEAD = '\r\n\r\n'

/**
 * The connection of a captured response. It reaches no client: the bytes that Node writes to it are parsed into a head and a
 * body. Backpressure comes from the reader of the body.
 */
export class CapturedConnection extends Duplex {
  /** The bytes after the head. Destroying the body closes the connection. */
  readonly body: Readable
  readonly #onHead: (head: ResponseHead) => void
  /** Which part of the response the next bytes belong to. */
  #part: 'head' | 'body' = 'head'
  /** Ends the pending write. Set while the buffer of the body is full. */
  #resume: (() => void) | undefined

  constructor(onHead: (head: ResponseHead) => void) {
    super()
    this.#onHead = onHead
    this.body = new Readable({
      read: () => this.#onBodyRead(),
      destroy: (error, done) => {
        this.destroy()
        done(error)
      },
    })
    // The reader of the body receives its errors. Without a reader they must not be unhandled.
    this.body.on('error', () => undefined)
    this.on('error', () => undefined)
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const bytes = this.#part === 'body' ? chunk : this.#parseHeads(chunk)
    if (bytes.length === 0 || this.body.push(bytes)) done()
    else this.#resume = done
  }

  override _final(done: () => void): void {
    this.body.push(null)
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.body.readableEnded && !this.writableFinished)
      this.body.destroy(error ?? new Error(CLOSED_EARLY))
    done(error)
  }

  #onBodyRead(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }

  /** Parses the heads, 1xx ones too. Node writes each in one chunk. Returns the rest of the chunk, which is body. */
  #parseHeads(chunk: Buffer): Buffer {
    let rest = chunk
    while (this.#part === 'head') {
      const end = rest.indexOf(END_OF_HEAD)
      if (end === -1) return Buffer.alloc(0)
      const head = parseHead(rest.toString('latin1', 0, end))
      rest = rest.subarray(end + END_OF_HEAD.length)
      if (head.status < 200) continue
      this.#part = 'body'
      this.#onHead(head)
    }
    return rest
  }

  // Methods of net.Socket that handlers call, and that must not reach the client's socket.
  destroySoon(): void {
    if (this.writable) this.end()
    if (this.writableFinished) this.destroy()
    else this.once('finish', () => this.destroy())
  }
  resetAndDestroy(): this {
    return this.destroy()
  }
  setTimeout(): this {
    return this
  }
  setNoDelay(): this {
    return this
  }
  setKeepAlive(): this {
    return this
  }
  ref(): this {
    return this
  }
  unref(): this {
    return this
  }
}

const CLOSED_EARLY = 'The handler closed the connection before its response was complete'

function parseHead(text: string): ResponseHead {
  const [statusLine = '', ...lines] = text.split('\r\n')
  const raw = lines.flatMap((line) => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon), line.slice(colon + 1).trim()]
  })
  return {
    status: Number(statusLine.slice(9, 12)),
    statusText: statusLine.slice(13),
    headers: fromRawHeaders(raw),
  }
}
