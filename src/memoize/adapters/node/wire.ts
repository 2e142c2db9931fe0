import { Duplex, Readable } from 'node:stream'
import { fromRawHeaders } from '../../engine/index.ts'
import type { HeaderFields } from '../../engine/message.ts'

/** The head of a response, as a client would have received it. */
export interface Head {
  status: number
  statusText: string
  headers: HeaderFields
}

const END_OF_HEAD = '\r\n\r\n'

/**
 * The connection of a captured response: it reaches no client, and what is written to it becomes a head and a body. The
 * body's reader sets the pace.
 */
export class Wire extends Duplex {
  /** What follows the head. To destroy it is to close the connection. */
  readonly body: Readable
  readonly #onHead: (head: Head) => void
  #hasHead = false
  /** Called when the body's reader wants more. */
  #proceed: (() => void) | undefined

  constructor(onHead: (head: Head) => void) {
    super()
    this.#onHead = onHead
    this.body = new Readable({
      read: () => this.#flow(),
      destroy: (error, done) => {
        this.destroy()
        done(error)
      },
    })
    // Whoever reads the body learns of it, and while nobody does it concerns nobody.
    this.body.on('error', () => undefined)
    this.on('error', () => undefined)
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const bytes = this.#hasHead ? chunk : this.#takeHead(chunk)
    if (bytes.length === 0 || this.body.push(bytes)) done()
    else this.#proceed = done
  }

  override _final(done: () => void): void {
    this.body.push(null)
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.body.readableEnded && !this.writableFinished) this.body.destroy(error ?? new Error(CUT_SHORT))
    done(error)
  }

  #flow(): void {
    const proceed = this.#proceed
    this.#proceed = undefined
    proceed?.()
  }

  /** Node writes every head in one piece, 1xx ones too. What is left of a chunk belongs to the body. */
  #takeHead(chunk: Buffer): Buffer {
    let rest = chunk
    while (!this.#hasHead) {
      const end = rest.indexOf(END_OF_HEAD)
      if (end === -1) return Buffer.alloc(0)
      const head = parseHead(rest.toString('latin1', 0, end))
      rest = rest.subarray(end + END_OF_HEAD.length)
      if (head.status < 200) continue
      this.#hasHead = true
      this.#onHead(head)
    }
    return rest
  }

  // What handlers expect of a connection, and what of it must not reach the client's.
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

const CUT_SHORT = 'The handler closed the connection before its answer was complete'

function parseHead(text: string): Head {
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
