import type { IncomingMessage, ServerResponse } from 'node:http'
import pDefer from 'p-defer'
import { onAbort } from '../../../kernel/waiting/on-abort.ts'
import type {
  HeaderFields,
  HttpRequest,
  HttpResponse,
  OriginRequest,
  OriginResponse,
} from '../../engine/index.ts'
import { linesOf } from '../../policy/fields.ts'
import { CapturedConnection, type ResponseHead } from './captured-connection.ts'
import { socketProxy } from './connection.ts'
import { equalHeaders, equalValues, requestHeaders } from './fields.ts'
import { createOutput } from './output.ts'
import { PropertyOverlay } from './property-overlay.ts'
import { RequestLifecycle } from './request-lifecycle.ts'
import { originRequestView } from './request-view.ts'
import { ResponseInterceptor } from './response-interceptor.ts'
import { requestTarget } from './target.ts'
import { writeResponse } from './write.ts'

/** Headers that identify the client. */
const CREDENTIALS = ['authorization', 'cookie'] as const

/**
 * Captures what a handler writes to the response of one client, as the response of the origin. Meanwhile the client's request
 * looks like the OriginRequest. The cache answers the client by the methods of its own response. A disconnect of the client
 * is hidden from the handler while other clients wait.
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
  readonly #interceptor: ResponseInterceptor
  readonly #lifecycle: RequestLifecycle
  /** Makes the client's request look like the OriginRequest. */
  readonly #requestView: PropertyOverlay
  /** Initial headers that the handler has removed. Written at the head. */
  #removedHeaders: string[] = []
  /** Initial cookies that the handler has kept, if it has removed any. Written at the head. */
  #remainingCookies: string[] | undefined
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
    this.#requestView = new PropertyOverlay(
      request,
      originRequestView(request, routed.headers, originRequest),
    )
    const socketView = socketProxy(this.#connection, request.socket)
    this.#output = createOutput(this.#connection, request, initialHeaders)
    if (!originRequest.background) this.#output.statusCode = response.statusCode
    this.#lifecycle = new RequestLifecycle(
      request,
      this.#connection,
      socketView,
      originRequest.background === true,
    )
    this.#interceptor = new ResponseInterceptor(response, this.#output, socketView)
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

  /** Answers the client with the response of the cache. The handler may still write; only the cache writes to the client. */
  respond(result: HttpResponse): void {
    this.#restore()
    if (!this.#response.headersSent) {
      for (const name of this.#removedHeaders) this.#response.removeHeader(name)
      if (this.#remainingCookies) this.#response.setHeader('set-cookie', this.#remainingCookies)
    }
    writeResponse(this.#response, result, this.#interceptor.bodySink)
    this.#interceptor.detach()
  }

  /** Has `write` answer the client by its own request and response. */
  respondBy(write: () => void): void {
    this.#restore()
    write()
    if (this.#response.writableEnded) this.#interceptor.detach()
  }

  /** Makes request and response the client's own again. */
  #restore(): void {
    this.#requestView.remove()
    this.#interceptor.expose()
  }

  #onClose(): void {
    this.fail(new Error('The handler closed the connection without a response'))
    this.#lifecycle.end(this.#output.writableFinished)
    this.#requestView.remove()
    this.#interceptor.onClose()
  }

  #onHead({ status, statusText, headers }: ResponseHead): void {
    const initial = this.#initialHeaders
    const [cookies, initialCookies] = [linesOf(headers, 'set-cookie'), linesOf(initial, 'set-cookie')]
    const added = cookies.filter(notAmong(initialCookies))
    if (added.length + initialCookies.length > cookies.length)
      this.#remainingCookies = cookies.filter(notAmong(added))
    this.#removedHeaders = Object.keys(initial).filter((name) => headers[name] === undefined)
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
