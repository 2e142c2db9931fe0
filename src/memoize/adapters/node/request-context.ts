import type { IncomingMessage, ServerResponse } from 'node:http'
import { ClosedError } from '../../../errors.ts'
import type { HeaderFields, HttpResponse, OriginRequest, OriginResponse } from '../../engine/index.ts'
import type { NodeAdapter } from './adapter.ts'
import { DeferredEnd } from './deferred-end.ts'
import { requestHeaders, responseHeaders } from './fields.ts'
import type { Next, NodeRequest } from './options.ts'
import { ResponseCapture } from './response-capture.ts'
import { type RoutedRequest, requestTarget } from './target.ts'
import { cacheStatusOf, writeResponse } from './write.ts'

/**
 * Who answers the client, and what the cache asks of this request:
 *
 * | state    | the handler                                  | origin() | respond()            | fail()                    |
 * | -------- | -------------------------------------------- | -------- | -------------------- | ------------------------- |
 * | pending  | was not called                               | ->       | writes the response  | handler or error response |
 * | captured | was called, for a response that may be shared | refused  | writes the response  | error response            |
 * | private  | respond() will call it                       | refused  | calls the handler    | handler or error response |
 * | deferred | was called; the end of its response waits    | refused  | lets the response end | lets the response end    |
 *
 * pending -> captured | private | deferred, by the first call of origin().
 */
type State =
  | { readonly kind: 'pending' }
  | { readonly kind: 'captured'; readonly capture: ResponseCapture }
  | { readonly kind: 'private' }
  | { readonly kind: 'deferred'; readonly end: DeferredEnd }

const PENDING: State = { kind: 'pending' }
const PRIVATE: State = { kind: 'private' }

/** One request of a client on its way through the cache. The cache sees it as an HttpRequest, and as its origin. */
export class RequestContext implements NodeRequest {
  readonly method: string
  readonly url: string
  readonly headers: HeaderFields
  readonly scheme: string
  readonly incoming: IncomingMessage
  readonly #response: ServerResponse
  readonly #next: Next | undefined
  readonly #adapter: NodeAdapter
  /** Headers that middlewares before the cache had set on the response. */
  readonly #initialHeaders: HeaderFields
  /** Aborts when the client disconnects. Made by the first read of `signal`. */
  #disconnected: AbortController | undefined
  #state: State = PENDING

  constructor(
    request: RoutedRequest,
    response: ServerResponse,
    next: Next | undefined,
    adapter: NodeAdapter,
  ) {
    this.method = request.method as string
    this.url = requestTarget(request)
    this.headers = requestHeaders(request)
    this.scheme = 'encrypted' in request.socket ? 'https' : 'http'
    this.incoming = request
    this.#response = response
    this.#initialHeaders = responseHeaders(response)
    this.#next = next
    this.#adapter = adapter
  }

  /** Whether the request is handled without the cache: HTTP/2, CONNECT, Upgrade, Expect, or a response that has begun. */
  get bypassesCache(): boolean {
    if (this.incoming.httpVersionMajor !== 1 || this.method === 'CONNECT' || this.#response.headersSent)
      return true
    const { upgrade, expect } = this.headers
    return (upgrade !== undefined || expect !== undefined) && this.#adapter.sharesMethod(this.method)
  }

  /** Aborts when the client disconnects. Created on demand: most requests are answered without it. */
  get signal(): AbortSignal {
    if (this.#disconnected) return this.#disconnected.signal
    const disconnected = new AbortController()
    this.#disconnected = disconnected
    if (this.#response.closed) disconnected.abort()
    else this.#response.once('close', () => disconnected.abort())
    return disconnected.signal
  }

  /** Calls the handler: for a response that may be shared, or for this client alone. */
  readonly origin = (originRequest: OriginRequest): OriginResponse | Promise<OriginResponse> => {
    // The body of a request and its response can be used once.
    if (this.#state.kind !== 'pending') throw new Error('The handler was called with this request before')
    return originRequest.shared ? this.#runCaptured(originRequest) : this.#runPrivately()
  }

  /** Resolves when the response has closed. From then on only a background refresh uses the request and the response. */
  whenAnswered(): Promise<void> {
    const response = this.#response
    return new Promise((resolve) => {
      if (response.closed) resolve()
      else response.once('close', resolve)
    })
  }

  /** Whether a background refresh can use this request: it has no body, or its body was read. */
  get canRefresh(): boolean {
    const { 'content-length': length = '0', 'transfer-encoding': coding } = this.headers
    return this.incoming.readableEnded || (length === '0' && coding === undefined)
  }

  #runCaptured(originRequest: OriginRequest): Promise<OriginResponse> {
    const initialHeaders = originRequest.background ? this.#initialHeaders : responseHeaders(this.#response)
    const capture = new ResponseCapture(
      originRequest,
      { routed: this, initialHeaders },
      this.incoming,
      this.#response,
    )
    this.#state = { kind: 'captured', capture }
    this.#adapter.runCaptured(capture, this.incoming, this.#response, this.#next)
    return capture.originResponse
  }

  #runPrivately(): OriginResponse | Promise<OriginResponse> {
    if (this.method === 'GET' || this.method === 'HEAD') {
      // A safe request changes nothing, so the cache does not use the response. The handler writes it, after the cache.
      this.#state = PRIVATE
      return { status: 200, headers: {} }
    }
    const end = new DeferredEnd(this.#response)
    this.#state = { kind: 'deferred', end }
    this.#passThrough()
    return end.headAtEnd
  }

  #passThrough(): void {
    this.#adapter.passThrough(this.incoming, this.#response, this.#next)
  }

  /** Answers the client with the response of the cache. */
  respond(result: HttpResponse): void {
    const state = this.#state
    if (state.kind === 'pending') return writeResponse(this.#response, result)
    if (state.kind === 'captured') return state.capture.respond(result)
    const cacheStatus = cacheStatusOf(result)
    if (cacheStatus !== undefined && !this.#response.headersSent)
      this.#response.setHeader('cache-status', cacheStatus)
    if (state.kind === 'deferred') state.end.release()
    else this.#passThrough()
  }

  /** Answers the client when the cache has no response for it. */
  fail(error: unknown): void {
    const state = this.#state
    if (state.kind === 'deferred') return state.end.release()
    // The handler may still run for other clients.
    if (this.#disconnected?.signal.aborted) return
    if (state.kind === 'captured') state.capture.respondBy(() => this.#respondWithError(error))
    // With the locker closed the handler works without the cache.
    else if (error instanceof ClosedError && !this.#response.headersSent) this.#passThrough()
    else this.#respondWithError(error)
  }

  #respondWithError(error: unknown): void {
    if (this.#response.headersSent) this.#response.destroy()
    else this.#adapter.respondWithError(error, this.#response, this.#next)
  }
}
