import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import pDefer from 'p-defer'
import { onAbort } from '../../kernel/on-abort.ts'
import { flat, linesOf } from '../http/fields.ts'
import type { HeaderFields, OriginRequest, OriginResponse } from '../http/index.ts'
import { endBody, takeBody } from './body.ts'
import { peerOf } from './peer.ts'
import { UnansweredError } from './unanswered.ts'
import { type Head, Wire } from './wire.ts'

/** What Express adds to a request. */
type Routed = IncomingMessage & {
  originalUrl?: string
  baseUrl?: string
  params?: unknown
  res?: ServerResponse
}

/** Requests of the cache itself, and what is to become of them. */
const inners = new WeakMap<IncomingMessage, Inner>()

/**
 * Whether the cache makes this request itself, to have a response made that all may share. Whatever counts or logs
 * requests and stands before the cache can leave those out.
 */
export function isInnerRequest(request: IncomingMessage): boolean {
  return inners.has(request)
}

export function innerOf(request: IncomingMessage): Inner | undefined {
  return inners.get(request)
}

/** A request without a client: what its response is, the cache is given. */
export class Inner {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly #wire: Wire
  readonly #answered = pDefer<OriginResponse>()
  /** Who may answer; a response that did not come from there is not the resource's. */
  readonly #owner: object
  #entered = false

  /** `real`: whose question it is, or was. */
  constructor(asked: OriginRequest, real: IncomingMessage, owner: object) {
    this.#owner = owner
    this.#wire = new Wire(peerOf(real), (head) => this.#begin(head))
    this.request = requestFor(asked, real, this.#wire)
    this.response = responseTo(this.request, this.#wire)
    this.#wire.once('close', () =>
      this.fail(new Error('The handler closed the connection without an answer')),
    )
    const { signal } = asked
    if (signal?.aborted) this.#wire.destroy()
    else if (signal) onAbort(signal, () => this.#wire.destroy())
    inners.set(this.request, this)
  }

  /** Settles with the head of the response; the body follows. */
  get answered(): Promise<OriginResponse> {
    return this.#answered.promise
  }

  /** Takes over what the routers have found out about the client's request. */
  follow(from: IncomingMessage): void {
    for (const [mine, theirs] of [
      [this.request, from],
      [this.response, (from as Routed).res ?? this.response],
    ] as const)
      Object.setPrototypeOf(mine, Object.getPrototypeOf(theirs))
    const { url, originalUrl, baseUrl, params } = from as Routed
    Object.assign(this.request, { url, originalUrl, baseUrl, params, res: this.response })
    Object.assign(this.response, { req: this.request, locals: Object.create(null) })
  }

  /** It has come to where the cache stands. */
  enter(place: object): void {
    if (place === this.#owner) this.#entered = true
  }

  /** There will be no response, or no more of it. */
  fail(error: unknown): void {
    this.#answered.reject(error)
    this.#wire.destroy()
  }

  #begin(head: Head): void {
    if (!this.#entered) this.fail(new UnansweredError('It was answered by another'))
    else this.#answered.resolve({ ...head, body: this.#wire.body })
  }
}

function requestFor(asked: OriginRequest, real: IncomingMessage, wire: Wire): IncomingMessage {
  const request = new IncomingMessage(wire as unknown as Socket)
  const { method, url, headers } = asked
  // Whatever version the one client speaks, the answer is for all.
  Object.assign(request, { method, url, httpVersion: '1.1', httpVersionMajor: 1, httpVersionMinor: 1 })
  if (method !== 'GET') takeBody(request, real, headers)
  else endBody(request)
  request.rawHeaders = flat(headers)
  request.headers = joined(headers)
  request.headersDistinct = distinct(headers)
  return request
}

function responseTo(request: IncomingMessage, wire: Wire): ServerResponse {
  const response = new ServerResponse(request)
  // The body is to come as it is, and ends with the connection.
  response.shouldKeepAlive = false
  response.useChunkedEncodingByDefault = false
  // A head that announces trailers has to be chunked, or Node refuses it.
  const chunked = { get: () => !response.headersSent, set: () => undefined }
  Object.defineProperty(response, 'chunkedEncoding', chunked)
  // As the server does when a client has taken what was written.
  Object.defineProperty(response, 'writableNeedDrain', { get: () => wire.writableNeedDrain })
  wire.on('drain', () => response.writableEnded || response.emit('drain'))
  response.assignSocket(wire as unknown as Socket)
  response.once('finish', () => wire.end())
  return response
}

function joined(headers: HeaderFields): NodeJS.Dict<string> {
  const lines = Object.entries(headers).map(([name, value]) => {
    const separator = name === 'cookie' ? '; ' : ', '
    return [name, Array.isArray(value) ? value.join(separator) : value]
  })
  return Object.fromEntries(lines)
}

function distinct(headers: HeaderFields): NodeJS.Dict<string[]> {
  return Object.fromEntries(Object.keys(headers).map((name) => [name, [...linesOf(headers, name)]]))
}
