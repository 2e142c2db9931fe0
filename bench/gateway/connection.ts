import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import pDefer, { type DeferredPromise } from 'p-defer'
import { LOCALHOST } from '../../test/support/ports.ts'

/** An answer of a server. */
export interface Answer {
  status: number
  /** The status line and the fields, as they were sent. */
  head: string
  body: string
}

export interface RequestOptions {
  headers?: string
  body?: string
}

/**
 * A connection of a client, which sends one request at a time. It understands answers with a Content-Length or without a
 * body, and no others: a client that costs much would hide what the servers cost.
 */
export class HttpConnection {
  readonly #socket: Socket
  #received = ''
  #answer: DeferredPromise<Answer> | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    // Bodies of the bench are of ASCII: a character is a byte.
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => this.#receive(text))
    socket.on('error', () => {})
    socket.on('close', () => this.#answer?.reject(new Error('The server has closed the connection')))
  }

  static async open(port: number): Promise<HttpConnection> {
    const socket = connect({ host: LOCALHOST, port, noDelay: true })
    await once(socket, 'connect')
    return new HttpConnection(socket)
  }

  request(method: string, path: string, { headers = '', body }: RequestOptions = {}): Promise<Answer> {
    const answer = pDefer<Answer>()
    this.#answer = answer
    const length = body === undefined ? '' : `Content-Length: ${body.length}\r\n`
    const head = `${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}${length}\r\n`
    this.#socket.write(body === undefined ? head : head + body, 'latin1')
    return answer.promise
  }

  #receive(text: string): void {
    this.#received += text
    const end = this.#received.indexOf('\r\n\r\n')
    if (end < 0) return
    const head = this.#received.slice(0, end + 2)
    const length = Number(fieldOf(head, 'content-length') ?? 0)
    const start = end + 4
    if (this.#received.length < start + length) return
    const body = this.#received.slice(start, start + length)
    this.#received = ''
    const answer = this.#answer
    this.#answer = undefined
    answer?.resolve({ status: Number(head.slice(9, 12)), head, body })
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** A field of the head of an answer. */
export function fieldOf(head: string, name: string): string | undefined {
  const start = head.toLowerCase().indexOf(`\r\n${name}:`)
  if (start < 0) return undefined
  const from = start + name.length + 3
  return head.slice(from, head.indexOf('\r\n', from)).trim()
}
