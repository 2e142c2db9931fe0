import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Duplex, Readable } from 'node:stream'
import pDefer from 'p-defer'
import { onAbort } from '../../../kernel/waiter.ts'
import {
  fromRawHeaders,
  type HeaderFields,
  type HttpRequest,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../../index.ts'
import { linesOf } from '../../policy/fields.ts'
import { equalHeaders, equalValues, requestHeaders, requestTarget, writeResponse } from './messages.ts'
import { RequestInterceptor } from './request-interceptor.ts'
import { ResponseInterceptor } from './response-interceptor.ts'

/** Headers that identify the client. */
const CREDENTIALS = ['authorization', 'cookie'] as const

interface HeaderChanges {
  /** Names of the headers that are gone. */
  readonly removed: readonly string[]
  /** The cookies that are left, if one is gone. */
  readonly cookiesLeft: readonly string[] | undefined
}

/**
 * Captures what a handler writes to the response of one client, as the response of the origin:
 *
 *     handler -> client's response, intercepted -> output -> CapturedConnection -> OriginResponse -> cache
 *     client  <- client's response, exposed     <- writeResponse()              <- HttpResponse   <- cache
 *
 * Meanwhile the client's request looks like the OriginRequest, and a disconnect of the client is hidden from the handler. When
 * nobody waits any more, the signal of the OriginRequest closes the connection.
 */
export class ResponseCapture {
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #originRequest: OriginRequest
  /** The headers that the response had when the capture began. */
  readonly #initialHeaders: HeaderFields
  /** Whether the request has changed since the cache decided about it. The response is private then. */
  readonly #requestChanged: boolean
  readonly #connection: CapturedConnection
  readonly #output: ServerResponse
  readonly #requestInterceptor: RequestInterceptor
  readonly #responseInterceptor: ResponseInterceptor
  /** What the handler has changed of the initial headers. Undefined until it has written the head. */
  #headerChanges: HeaderChanges | undefined
  readonly #originResponse = pDefer<OriginResponse>()

  /** `routed`: the request as the cache has decided about it. `initialHeaders`: those of the response. */
  constructor(
    originRequest: OriginRequest,
    {
      routed,
      initialHeaders,
    }: { routed: Pick<HttpRequest, 'method' | 'url' | 'headers'>; initialHeaders: HeaderFields },
    request: IncomingMessage,
    response: ServerResponse,
  ) {
    this.#request = request
    this.#response = response
    this.#originRequest = originRequest
    this.#initialHeaders = initialHeaders
    this.#requestChanged =
      request.method !== routed.method ||
      requestTarget(request) !== routed.url ||
      !equalHeaders(requestHeaders(request), routed.headers)
    this.#connection = new CapturedConnection((head) => this.#onHead(head))
    const socketView = socketProxy(this.#connection, request.socket)
    this.#output = createOutput(this.#connection, originRequest.method, initialHeaders)
    if (!originRequest.background) this.#output.statusCode = response.statusCode
    this.#requestInterceptor = new RequestInterceptor(request, routed.headers, originRequest, socketView)
    this.#responseInterceptor = new ResponseInterceptor(response, this.#output, socketView)
    this.#connection.once('close', () => this.#onClose())
    // The caller of the origin receives a rejection, if it still waits.
    this.#originResponse.promise.catch(() => undefined)
    const { signal } = originRequest
    if (signal?.aborted) this.#connection.destroy()
    else if (signal) onAbort(signal, () => this.#connection.destroy())
  }

  /** Resolves when the handler has written the head; the body follows. Rejects when there is no response. */
  get originResponse(): Promise<OriginResponse> {
    return this.#originResponse.promise
  }

  /** Whether the handler has ended its response. */
  get isComplete(): boolean {
    return this.#output.writableEnded
  }

  /** Ends the capture: without a response, or with a truncated one. */
  fail(error: unknown): void {
    this.#originResponse.reject(error)
    this.#connection.destroy()
  }

  /** Answers the client with the response of the cache. The handler may go on writing to the output. */
  respond(result: HttpResponse): void {
    this.#restore()
    if (this.#headerChanges && !this.#response.headersSent) {
      const { removed, cookiesLeft } = this.#headerChanges
      for (const name of removed) this.#response.removeHeader(name)
      if (cookiesLeft) this.#response.setHeader('set-cookie', cookiesLeft)
    }
    writeResponse(this.#response, result, this.#responseInterceptor.bodySink)
    this.#responseInterceptor.detach()
  }

  /** Has `write` answer the client by its own request and response. */
  respondBy(write: () => void): void {
    this.#restore()
    write()
    if (this.#response.writableEnded) this.#responseInterceptor.detach()
  }

  /** Makes request and response the client's own again. */
  #restore(): void {
    this.#requestInterceptor.restoreHead()
    this.#responseInterceptor.expose()
  }

  #onClose(): void {
    if (!this.#headerChanges) this.fail(new Error('The handler closed the connection without a response'))
    this.#requestInterceptor.end(this.#output.writableFinished)
    this.#responseInterceptor.onClose()
  }

  #onHead({ status, statusText, headers }: ResponseHead): void {
    const initial = this.#initialHeaders
    const [cookies, initialCookies] = [linesOf(headers, 'set-cookie'), linesOf(initial, 'set-cookie')]
    const added = cookies.filter(notAmong(initialCookies))
    const isCookieGone = added.length + initialCookies.length > cookies.length
    this.#headerChanges = {
      removed: Object.keys(initial).filter((name) => headers[name] === undefined),
      cookiesLeft: isCookieGone ? cookies.filter(notAmong(added)) : undefined,
    }
    const privateFields = Object.keys(initial).filter((name) => equalValues(initial[name], headers[name]))
    if (added.length > 0) headers['set-cookie'] = added
    else delete headers['set-cookie']
    const current = requestHeaders(this.#request)
    const identified = CREDENTIALS.some(
      (name) => current[name] !== undefined && !this.#originRequest.headers[name],
    )
    this.#originResponse.resolve({
      status,
      statusText,
      headers,
      body: this.#connection.body,
      privateFields,
      private: this.#requestChanged || identified,
    })
  }
}

/** Matches lines that are not among these. Each of these matches one equal line (multiset difference). */
function notAmong(lines: readonly string[]): (line: string) => boolean {
  const left = [...lines]
  return (line) => {
    const at = left.indexOf(line)
    if (at >= 0) left.splice(at, 1)
    return at < 0
  }
}

/** The response that takes what a handler writes while its client's response is captured. It starts with the same headers. */
function createOutput(connection: CapturedConnection, method: string, headers: HeaderFields): ServerResponse {
  // On Bun a response writes to the connection of the request that it is constructed with.
  const request = new IncomingMessage(connection as unknown as Socket)
  Object.assign(request, { method, httpVersion: '1.1', httpVersionMajor: 1, httpVersionMinor: 1 })
  const output = new ServerResponse(request)
  for (const name in headers) {
    const value = headers[name]
    // appendHeader() changes an array in place.
    if (value !== undefined) output.setHeader(name, Array.isArray(value) ? [...value] : value)
  }
  // The body is not chunked, and ends with the connection.
  output.shouldKeepAlive = false
  output.useChunkedEncodingByDefault = false
  // Node refuses a head that announces trailers unless the body is chunked.
  const chunked = { get: () => !output.headersSent, set: () => undefined }
  Object.defineProperty(output, 'chunkedEncoding', chunked)
  // Node's server does the same when a client has read what was written.
  Object.defineProperty(output, 'writableNeedDrain', { get: () => connection.writableNeedDrain })
  connection.on('drain', () => output.writableEnded || output.emit('drain'))
  output.assignSocket(connection as unknown as Socket)
  output.once('finish', () => connection.end())
  return output
}

/**
 * The socket that a handler sees while its response is captured. Streaming and lifetime are those of the captured connection;
 * everything else (addresses, certificate, server) is read from the client's socket.
 */
function socketProxy(captured: CapturedConnection, client: Socket): Socket {
  // A socket knows its addresses after its end only if they were read before.
  Reflect.get(client, 'remoteAddress')
  Reflect.get(client, 'localAddress')
  const handler: ProxyHandler<CapturedConnection> = {
    get: (_target, name) => {
      const owner = name in captured ? captured : client
      const value: unknown = Reflect.get(owner, name, owner)
      return typeof value === 'function' && name !== 'constructor' ? bound(value, owner) : value
    },
    set: (_target, name, value) => Reflect.set(captured, name, value, captured),
    has: (_target, name) => name in captured || name in client,
    getPrototypeOf: () => Object.getPrototypeOf(client),
  }
  // Each method is bound once, so that reads of it are identical.
  const bindings = new WeakMap<object, unknown>()
  const bound = (method: object, owner: object): unknown => {
    const call = bindings.get(method) ?? Function.prototype.bind.call(method as () => unknown, owner)
    bindings.set(method, call)
    return call
  }
  return new Proxy(captured, handler) as unknown as Socket
}

/** The head of a response as a client would receive it. */
interface ResponseHead {
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
