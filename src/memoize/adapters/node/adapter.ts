import type { IncomingMessage, ServerResponse } from 'node:http'
import { messageOf } from '../../../kernel/codec/codec.ts'
import { checkFunction } from '../../../kernel/options.ts'
import { emitWarning } from '../../../kernel/warnings.ts'
import { callHook, reportHookError } from '../../../kernel/work/user-code.ts'
import type { Locker } from '../../../locker/locker.ts'
import { HTTP_CACHE_DEFAULTS, HttpCache } from '../../engine/index.ts'
import type { Capture } from './capture.ts'
import { isComplete } from './held.ts'
import type { Handler, MemoizeHandlerOptions, Next } from './options.ts'
import { Exchange } from './request-context.ts'
import { writeAnswer } from './write.ts'

/** Where a cache stands in a server, and what is behind it. */
export class Site {
  readonly #cache: HttpCache
  /** What answers; without it, whatever `next` leads to. */
  readonly #handler: Handler | undefined
  readonly #methods: ReadonlySet<string>
  readonly #onError: (error: unknown, request: IncomingMessage) => void

  constructor(locker: Locker, { onError = warn, ...options }: MemoizeHandlerOptions, handler?: Handler) {
    checkFunction('onError', onError)
    this.#cache = new HttpCache(locker, options)
    this.#handler = handler
    this.#methods = new Set(options.methods ?? HTTP_CACHE_DEFAULTS.methods)
    this.#onError = onError
  }

  /** Answers a request, in this very call when this process has the answer. */
  handle(request: IncomingMessage, response: ServerResponse, next?: Next): void {
    const exchange = new Exchange(request, response, next, this)
    if (exchange.passes) return this.proceed(request, response, next)
    try {
      const answer = this.#cache.handle(exchange, exchange.origin)
      if (!(answer instanceof Promise)) return writeAnswer(response, answer)
      answer.then((answer) => exchange.finish(answer)).catch((error) => exchange.fail(error))
    } catch (error) {
      // What cannot be written must not take the server with it.
      exchange.fail(error)
    }
  }

  /** Whether answers to this method may be shared. */
  shares(method: string): boolean {
    return this.#methods.has(method)
  }

  /** Leaves a request to the handler. */
  proceed(request: IncomingMessage, response: ServerResponse, next?: Next): void {
    if (!this.#handler) return next?.()
    this.#call(request, response, next, (error) => this.refuse(error, response, next))
  }

  /** Has the handler answer a request whose response is captured. Errors that `next` is told are answered by its pages. */
  ask(capture: Capture, request: IncomingMessage, response: ServerResponse, next?: Next): void {
    const fail = (error: unknown): void => {
      // What comes after its end does not undo an answer.
      if (capture.complete) return
      if (next) passOn(error, response, next)
      else capture.fail(error)
    }
    if (this.#handler) return this.#call(request, response, next, fail)
    try {
      next?.()
    } catch (error) {
      capture.fail(error)
    }
  }

  #call(
    request: IncomingMessage,
    response: ServerResponse,
    next: Next | undefined,
    fail: (error: unknown) => void,
  ): void {
    const failed = (error: unknown): void => {
      callHook(undefined, 'onError', this.#onError, error, request)
      fail(error)
    }
    try {
      // Whoever takes a `next` is asked by something that has one.
      const returned = this.#handler?.(request, response, next as Next)
      Promise.resolve(returned).catch(failed)
    } catch (error) {
      failed(error)
    }
  }

  /** Tells a client that there is no answer. */
  refuse(error: unknown, response: ServerResponse, next?: Next): void {
    if (isComplete(response)) return
    if (next) passOn(error, response, next)
    else if (response.headersSent) response.destroy()
    else {
      for (const name of response.getHeaderNames()) response.removeHeader(name)
      const fields = { 'content-type': 'text/plain', 'cache-control': 'no-store' }
      response.writeHead(500, 'Internal Server Error', fields).end('Failed\n')
    }
  }
}

/** Outside of the call of its server, nobody catches what `next` throws. */
function passOn(error: unknown, response: ServerResponse, next: Next): void {
  try {
    next(error)
  } catch (thrown) {
    reportHookError('next', thrown)
    response.destroy()
  }
}

function warn(error: unknown): void {
  emitWarning(messageOf(error), { type: error instanceof Error ? error.name : 'Warning' }, error)
}
