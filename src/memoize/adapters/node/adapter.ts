import type { IncomingMessage, ServerResponse } from 'node:http'
import { ClosedError } from '../../../errors.ts'
import { messageOf } from '../../../kernel/codec/codec.ts'
import { callHook, reportHookError } from '../../../kernel/hooks.ts'
import { checkFunction } from '../../../kernel/options.ts'
import { emitWarning } from '../../../kernel/telemetry.ts'
import type { Locker } from '../../../locker/index.ts'
import { cacheStatusLines } from '../../engine/responses.ts'
import {
  type HeaderFields,
  HttpCache,
  type HttpCacheOptions,
  type HttpRequest,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../../index.ts'
import { DeferredEnd, isComplete } from './deferred-end.ts'
import {
  type RoutedRequest,
  requestHeaders,
  requestTarget,
  responseHeaders,
  writeResponse,
} from './messages.ts'
import { ResponseCapture } from './response-capture.ts'

/** A request as options see it. */
export interface NodeRequest extends HttpRequest {
  /** The client's request. Undefined for a URL that another request has changed. */
  incoming?: IncomingMessage | undefined
}

/** Options of a memoized handler on node:http: those of HttpCache, and `onError`. */
export interface MemoizeHandlerOptions extends HttpCacheOptions<NodeRequest> {
  /**
   * Called with every error that the handler (the third argument of memoizeHandler) throws or rejects with. The client is
   * then answered by 500, or by the application's error handler if there is a `next`.
   * @default process.emitWarning
   */
  onError?: ((error: unknown, request: IncomingMessage) => void) | undefined
}

/** `next` of Express and Connect. */
export type Next = (error?: unknown) => void

/** A handler of node:http, Express or Connect. It receives `next` only when the server passes one. */
export type Handler<
  Req extends IncomingMessage = IncomingMessage,
  Res extends ServerResponse = ServerResponse,
> = (request: Req, response: Res, next: Next) => unknown

/** A middleware of Express and Connect. */
export type Middleware = (request: IncomingMessage, response: ServerResponse, next: Next) => void

/** A listener for node:http, and a handler for a route of Express or Connect. */
export type MemoizedHandler<
  Req extends IncomingMessage = IncomingMessage,
  Res extends ServerResponse = ServerResponse,
> = (request: Req, response: Res, next?: Next) => void

/** What is behind the cache. */
interface Application {
  /** Produces the responses. When undefined, whatever follows `next` does. */
  readonly handler: Handler | undefined
  /** Methods whose responses may be shared. */
  readonly methods: ReadonlySet<string>
  readonly onError: (error: unknown, request: IncomingMessage) => void
}

/** Connects an HttpCache to a server on node:http: the cache in front, a handler or `next` behind it. */
export class NodeAdapter {
  readonly #cache: HttpCache
  readonly #application: Application

  constructor(
    locker: Locker,
    { onError = emitErrorWarning, ...options }: MemoizeHandlerOptions,
    handler?: Handler,
  ) {
    checkFunction('onError', onError)
    this.#cache = new HttpCache(locker, options)
    this.#application = { handler, methods: this.#cache.methods, onError }
  }

  /** Answers a request. A response from the in-process cache is written before this returns. */
  readonly handle: MemoizedHandler = (request, response, next) => {
    const context = new RequestContext(request, response, next, this.#application)
    if (context.bypassesCache) return context.passThrough()
    try {
      const result = this.#cache.handle(context, context.origin)
      if (!(result instanceof Promise)) return context.respond(result)
      result.then((result) => context.respond(result)).catch((error) => context.fail(error))
    } catch (error) {
      // An exception while writing must not reach the server: it would end the process.
      context.fail(error)
    }
  }
}

/**
 * How the client of a request is answered:
 *
 * | state    | the handler                                  | respond()             | fail()                    |
 * | -------- | -------------------------------------------- | --------------------- | ------------------------- |
 * | pending  | was not called                               | writes the response   | handler or error response |
 * | captured | was called, for a response that may be shared | writes the response  | error response            |
 * | private  | respond() will call it                       | calls the handler     | handler or error response |
 * | deferred | was called; the end of its response waits    | lets the response end | lets the response end     |
 *
 * pending -> captured | private | deferred, by the first call of origin(). Further calls are refused.
 */
type State =
  | { readonly kind: 'pending' }
  | { readonly kind: 'captured'; readonly capture: ResponseCapture }
  | { readonly kind: 'private' }
  | { readonly kind: 'deferred'; readonly end: DeferredEnd }

/** The reason of every abort: to make one takes a stack trace, and each response that has waited closes. */
const DISCONNECTED = new DOMException('The client has disconnected', 'AbortError')

const PENDING: State = { kind: 'pending' }
const PRIVATE: State = { kind: 'private' }

/** One request of a client on its way through the cache. The cache sees it as an HttpRequest, and as its origin. */
class RequestContext implements NodeRequest {
  readonly method: string
  readonly url: string
  readonly headers: HeaderFields
  readonly scheme: string
  readonly incoming: IncomingMessage
  readonly #response: ServerResponse
  readonly #next: Next | undefined
  readonly #application: Application
  /** Headers that middlewares before the cache had set on the response. */
  readonly #initialHeaders: HeaderFields
  /** Aborts when the client disconnects. Made by the first read of `signal`. */
  #disconnected: AbortController | undefined
  #state: State = PENDING

  constructor(
    request: RoutedRequest,
    response: ServerResponse,
    next: Next | undefined,
    application: Application,
  ) {
    this.method = request.method as string
    this.url = requestTarget(request)
    this.headers = requestHeaders(request)
    this.scheme = 'encrypted' in request.socket ? 'https' : 'http'
    this.incoming = request
    this.#response = response
    this.#initialHeaders = responseHeaders(response)
    this.#next = next
    this.#application = application
  }

  /** Whether the request is handled without the cache: HTTP/2, CONNECT, Upgrade, Expect, or a response that has begun. */
  get bypassesCache(): boolean {
    if (this.incoming.httpVersionMajor !== 1 || this.method === 'CONNECT' || this.#response.headersSent)
      return true
    const { upgrade, expect } = this.headers
    return (upgrade !== undefined || expect !== undefined) && this.#application.methods.has(this.method)
  }

  /** Aborts when the client disconnects. Created on demand: most requests are answered without it. */
  get signal(): AbortSignal {
    if (this.#disconnected) return this.#disconnected.signal
    const disconnected = new AbortController()
    this.#disconnected = disconnected
    if (this.#response.closed) disconnected.abort(DISCONNECTED)
    else this.#response.once('close', () => disconnected.abort(DISCONNECTED))
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

  /** Answers the client with the response of the cache. */
  respond(result: HttpResponse): void {
    const state = this.#state
    if (state.kind === 'pending') return writeResponse(this.#response, result)
    if (state.kind === 'captured') return state.capture.respond(result)
    const cacheStatus = cacheStatusLines(result.headers)
    if (cacheStatus.length > 0 && !this.#response.headersSent)
      this.#response.setHeader('cache-status', cacheStatus.join(', '))
    if (state.kind === 'deferred') state.end.release()
    else this.passThrough()
  }

  /** Answers the client when the cache has no response for it. */
  fail(error: unknown): void {
    const state = this.#state
    if (state.kind === 'deferred') return state.end.release()
    // The handler may still run for other clients.
    if (this.#disconnected?.signal.aborted) return
    if (state.kind === 'captured') state.capture.respondBy(() => this.#failResponse(error))
    // With the locker closed the handler works without the cache.
    else if (error instanceof ClosedError && !this.#response.headersSent) this.passThrough()
    else this.#failResponse(error)
  }

  /** Calls the handler with the client's own request and response, without the cache. */
  passThrough(): void {
    if (this.#application.handler) this.#callHandler((error) => this.#respondWithError(error))
    else this.#next?.()
  }

  /** Calls the handler while its response is captured. */
  #runCaptured(originRequest: OriginRequest): Promise<OriginResponse> {
    const initialHeaders = originRequest.background ? this.#initialHeaders : responseHeaders(this.#response)
    const terms = { routed: this, initialHeaders }
    const capture = new ResponseCapture(originRequest, terms, this.incoming, this.#response)
    this.#state = { kind: 'captured', capture }
    if (this.#application.handler) {
      this.#callHandler((error) => {
        // The response is complete: a later error does not change it.
        if (capture.isComplete) return
        // The application's error handler writes a response, which is captured.
        if (this.#next) this.#passError(error, this.#next)
        else capture.fail(error)
      })
      return capture.originResponse
    }
    try {
      this.#next?.()
    } catch (error) {
      capture.fail(error)
    }
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
    this.passThrough()
    return end.headAtEnd
  }

  #callHandler(fail: (error: unknown) => void): void {
    const { handler, onError } = this.#application
    const onFailure = (error: unknown): void => {
      callHook(undefined, 'onError', onError, error, this.incoming)
      fail(error)
    }
    try {
      // A handler that uses `next` is only ever called by a server that passes one.
      const returned = handler?.(this.incoming, this.#response, this.#next as Next)
      Promise.resolve(returned).catch(onFailure)
    } catch (error) {
      onFailure(error)
    }
  }

  /** Ends a response that the cache cannot give: cuts it off if it has begun. */
  #failResponse(error: unknown): void {
    if (this.#response.headersSent) this.#response.destroy()
    else this.#respondWithError(error)
  }

  /** Answers an error: by the application's error handler through `next`, otherwise by 500. */
  #respondWithError(error: unknown): void {
    const response = this.#response
    if (isComplete(response)) return
    if (this.#next) this.#passError(error, this.#next)
    else if (response.headersSent) response.destroy()
    else {
      for (const name of response.getHeaderNames()) response.removeHeader(name)
      const headers = { 'content-type': 'text/plain', 'cache-control': 'no-store' }
      response.writeHead(500, 'Internal Server Error', headers).end('Failed\n')
    }
  }

  /** Calls `next` with an error. Catches what `next` throws: outside of the server's own call nothing else would. */
  #passError(error: unknown, next: Next): void {
    try {
      next(error)
    } catch (thrown) {
      reportHookError('next', thrown)
      this.#response.destroy()
    }
  }
}

function emitErrorWarning(error: unknown): void {
  emitWarning(messageOf(error), { type: error instanceof Error ? error.name : 'Warning' }, error)
}
