import type { IncomingMessage, ServerResponse } from 'node:http'
import { messageOf } from '../../../kernel/codec/codec.ts'
import { checkFunction } from '../../../kernel/options.ts'
import { emitWarning } from '../../../kernel/warnings.ts'
import { callHook, reportHookError } from '../../../kernel/work/user-code.ts'
import type { Locker } from '../../../locker/locker.ts'
import { HTTP_CACHE_DEFAULTS, HttpCache } from '../../engine/index.ts'
import { isComplete } from './deferred-end.ts'
import type { Handler, MemoizeHandlerOptions, Next } from './options.ts'
import { RequestContext } from './request-context.ts'
import type { ResponseCapture } from './response-capture.ts'
import { writeResponse } from './write.ts'

/** Connects an HttpCache to a server on node:http: the cache in front, a handler or `next` behind it. */
export class NodeAdapter {
  readonly #cache: HttpCache
  /** Produces the responses. When undefined, whatever follows `next` does. */
  readonly #handler: Handler | undefined
  /** Methods whose responses may be shared. */
  readonly #methods: ReadonlySet<string>
  readonly #onError: (error: unknown, request: IncomingMessage) => void

  constructor(
    locker: Locker,
    { onError = emitErrorWarning, ...options }: MemoizeHandlerOptions,
    handler?: Handler,
  ) {
    checkFunction('onError', onError)
    this.#cache = new HttpCache(locker, options)
    this.#handler = handler
    this.#methods = new Set(options.methods ?? HTTP_CACHE_DEFAULTS.methods)
    this.#onError = onError
  }

  /** Answers a request. A response from the in-process cache is written before this returns. */
  handle(request: IncomingMessage, response: ServerResponse, next?: Next): void {
    const context = new RequestContext(request, response, next, this)
    if (context.bypassesCache) return this.passThrough(request, response, next)
    try {
      const result = this.#cache.handle(context, context.origin)
      if (!(result instanceof Promise)) return writeResponse(response, result)
      result.then((result) => context.respond(result)).catch((error) => context.fail(error))
    } catch (error) {
      // An exception while writing must not reach the server: it would end the process.
      context.fail(error)
    }
  }

  /** Whether responses to this method may be shared. */
  sharesMethod(method: string): boolean {
    return this.#methods.has(method)
  }

  /** Calls the handler with the client's own request and response, without the cache. */
  passThrough(request: IncomingMessage, response: ServerResponse, next?: Next): void {
    if (!this.#handler) return next?.()
    this.#callHandler(request, response, next, (error) => this.respondWithError(error, response, next))
  }

  /**
   * Calls the handler while the response is captured. With a `next`, the application's error handler answers errors, and
   * its response is captured; without one, the capture fails.
   */
  runCaptured(
    capture: ResponseCapture,
    request: IncomingMessage,
    response: ServerResponse,
    next?: Next,
  ): void {
    const fail = (error: unknown): void => {
      // The response is complete: a later error does not change it.
      if (capture.isComplete) return
      if (next) passError(error, response, next)
      else capture.fail(error)
    }
    if (this.#handler) return this.#callHandler(request, response, next, fail)
    try {
      next?.()
    } catch (error) {
      capture.fail(error)
    }
  }

  #callHandler(
    request: IncomingMessage,
    response: ServerResponse,
    next: Next | undefined,
    fail: (error: unknown) => void,
  ): void {
    const onError = (error: unknown): void => {
      callHook(undefined, 'onError', this.#onError, error, request)
      fail(error)
    }
    try {
      // A handler that uses `next` is only ever called by a server that passes one.
      const returned = this.#handler?.(request, response, next as Next)
      Promise.resolve(returned).catch(onError)
    } catch (error) {
      onError(error)
    }
  }

  /** Answers an error: by the application's error handler through `next`, otherwise by 500. */
  respondWithError(error: unknown, response: ServerResponse, next?: Next): void {
    if (isComplete(response)) return
    if (next) passError(error, response, next)
    else if (response.headersSent) response.destroy()
    else {
      for (const name of response.getHeaderNames()) response.removeHeader(name)
      const headers = { 'content-type': 'text/plain', 'cache-control': 'no-store' }
      response.writeHead(500, 'Internal Server Error', headers).end('Failed\n')
    }
  }
}

/** Calls `next` with an error. Catches what `next` throws: outside of the server's own call nothing else would. */
function passError(error: unknown, response: ServerResponse, next: Next): void {
  try {
    next(error)
  } catch (thrown) {
    reportHookError('next', thrown)
    response.destroy()
  }
}

function emitErrorWarning(error: unknown): void {
  emitWarning(messageOf(error), { type: error instanceof Error ? error.name : 'Warning' }, error)
}
