import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { nextTick } from '../../../kernel/time.ts'
import { fromRawHeaders, type HeaderFields, type OriginRequest } from '../../index.ts'
import { linesOf } from '../../policy/fields.ts'
import { equalValues } from './messages.ts'
import { accessor, dataProperty, type Method, type Properties, PropertyOverlay } from './property-overlay.ts'

/** The code of the error with which Node destroys the requests of a client that has gone. */
const CLIENT_DISCONNECTED = 'ECONNRESET'

/**
 * Decides what the client's request is for those that hold it, while the response of its handler is captured:
 * - its head is that of the OriginRequest, until restoreHead();
 * - its socket is the captured connection, and a disconnect of the client is hidden, until end(): the handler also works
 *   for other clients. A disconnect is not hidden while the body of the request is incomplete.
 */
export class RequestInterceptor {
  readonly #request: IncomingMessage
  readonly #head: PropertyOverlay
  readonly #lifetime: PropertyOverlay
  /** Set while a method of Node runs, which must see the client's socket. */
  #showsClientSocket = false
  /** The hidden disconnect. */
  #disconnectError: Error | undefined

  /** `routedHeaders`: the headers of the request when the cache decided about it. `socketView`: what its handler sees. */
  constructor(
    request: IncomingMessage,
    routedHeaders: HeaderFields,
    originRequest: OriginRequest,
    socketView: Socket,
  ) {
    this.#request = request
    const { socket } = request
    const lifetime: Properties = new Map([
      [
        'socket',
        accessor(
          () => (this.#showsClientSocket ? socket : socketView),
          (value) => this.#lifetime.write('socket', value),
        ),
      ],
      ['destroy', dataProperty((error?: Error) => this.#destroy(error, socketView))],
      ['_read', dataProperty((...args: unknown[]) => this.#callNode('_read', args))],
      ['_destroy', dataProperty((...args: unknown[]) => this.#callNode('_destroy', args))],
    ])
    if (originRequest.background) {
      // The request has ended before.
      lifetime.set('destroyed', dataProperty(false))
      for (const name of ['on', 'addListener']) lifetime.set(name, dataProperty(this.#listen))
    }
    this.#head = new PropertyOverlay(request, headOf(request, routedHeaders, originRequest))
    this.#lifetime = new PropertyOverlay(request, lifetime)
  }

  /** The head is the client's again. */
  restoreHead(): void {
    this.#head.remove()
  }

  /** The handler has ended its response (`completed`), or was cut off. Applies a hidden disconnect. */
  end(completed: boolean): void {
    this.#lifetime.remove()
    // The handler has completed its response: the request ends without an error.
    if (this.#disconnectError && completed) this.#request.resume()
    else if (this.#disconnectError) this.#request.destroy(this.#disconnectError)
    this.#head.remove()
  }

  /** A request that has ended has emitted these events already. Emits them again to the new listener. */
  readonly #listen = (event: string | symbol, listener: Method): IncomingMessage => {
    const request = this.#request
    const wasEmitted = event === 'end' ? request.readableEnded : event === 'close' && request.closed
    if (wasEmitted) nextTick(() => listener.call(request))
    else this.#callNode('on', [event, listener])
    return request
  }

  #destroy(error: Error | undefined, socketView: Socket): IncomingMessage {
    const isDisconnect = (error as NodeJS.ErrnoException | undefined)?.code === CLIENT_DISCONNECTED
    const isCleanup = error === undefined && this.#request.readableEnded
    if (isCleanup || (isDisconnect && !this.#request.complete)) this.#callNode('destroy', [error])
    else if (isDisconnect) this.#disconnectError = error
    else socketView.destroy(error)
    return this.#request
  }

  #callNode(name: string, args: unknown[]): unknown {
    this.#showsClientSocket = true
    try {
      return this.#lifetime.call(name, args)
    } finally {
      this.#showsClientSocket = false
    }
  }
}

/** The properties of a request that make its head that of the OriginRequest. */
function headOf(
  request: IncomingMessage,
  routedHeaders: HeaderFields,
  originRequest: OriginRequest,
): Properties {
  const headers = headersFor(request, routedHeaders, originRequest)
  const raw = rawHeadersOf(request, headers)
  const head = {
    method: originRequest.method,
    // A shared response must not depend on the protocol version of one client.
    httpVersion: '1.1',
    httpVersionMajor: 1,
    httpVersionMinor: 1,
    headers,
    headersDistinct: headersDistinctOf(raw),
    rawHeaders: raw,
  }
  return new Map(Object.entries(head).map(([name, value]) => [name, dataProperty(value)]))
}

/** The current values of the headers, except those that differ in the OriginRequest. */
function headersFor(
  request: IncomingMessage,
  routedHeaders: HeaderFields,
  { method, headers: originHeaders }: OriginRequest,
): IncomingHttpHeaders {
  const headers: [string, string | string[] | undefined][] = []
  const missing = new Set(Object.keys(originHeaders))
  for (const [key, value] of Object.entries(request.headers)) {
    const name = key.toLowerCase()
    // Body parsers read Transfer-Encoding to see whether there is a body.
    const framesBody = name === 'transfer-encoding' && method !== 'GET'
    if (framesBody || equalValues(originHeaders[name], routedHeaders[name])) headers.push([key, value])
    else if (originHeaders[name] !== undefined) headers.push([key, joined(name, originHeaders[name])])
    missing.delete(name)
  }
  for (const name of missing) headers.push([name, joined(name, originHeaders[name])])
  // fromEntries() defines properties: a header named __proto__ does not set the prototype.
  return Object.fromEntries(headers)
}

/** The lines of a header as Node joins them. */
function joined(name: string, value: HeaderFields[string]): string | undefined {
  return Array.isArray(value) ? value.join(name === 'cookie' ? '; ' : ', ') : value
}

/** Headers as name, value. Headers that no middleware has changed keep their lines as received. */
function rawHeadersOf({ rawHeaders }: IncomingMessage, headers: IncomingHttpHeaders): string[] {
  const received = fromRawHeaders(rawHeaders)
  return Object.entries(headers).flatMap(([name, value]) => {
    const lines = isUnchanged(name, received[name], value) ? linesOf(received, name) : [value ?? []].flat()
    return lines.flatMap((line) => [name, String(line)])
  })
}

/** Whether a value is what Node has made of these lines. */
function isUnchanged(
  name: string,
  lines: HeaderFields[string],
  value: string | string[] | undefined,
): boolean {
  return lines !== undefined && !Array.isArray(value) && value === joined(name, lines)
}

function headersDistinctOf(raw: readonly string[]): NodeJS.Dict<string[]> {
  const fields = fromRawHeaders(raw)
  return Object.fromEntries(Object.keys(fields).map((name) => [name, [...linesOf(fields, name)]]))
}
