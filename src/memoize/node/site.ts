import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { checkFunction } from '../../kernel/check.ts'
import { messageOf } from '../../kernel/codec.ts'
import { callHook, reportFailure } from '../../kernel/user-code.ts'
import { emitWarning } from '../../kernel/warnings.ts'
import type { Locker } from '../../locker/locker.ts'
import { HTTP_CACHE_DEFAULTS, HttpCache } from '../http/index.ts'
import { Exchange } from './exchange.ts'
import { type Inner, innerOf } from './inner.ts'
import type { Handler, MemoizeHandlerOptions, Next } from './options.ts'
import { UnansweredError } from './unanswered.ts'
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
    const inner = innerOf(request)
    inner?.enter(this)
    if (inner) return this.proceed(request, response, next)
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

  /** Whether it has a handler of its own. */
  get answers(): boolean {
    return this.#handler !== undefined
  }

  /** Whether answers to this method may be shared. */
  shares(method: string): boolean {
    return this.#methods.has(method)
  }

  /** Leaves a request to the handler. */
  proceed(request: IncomingMessage, response: ServerResponse, next?: Next): void {
    if (!this.#handler) return next?.()
    const inner = innerOf(request)
    const fail = (error: unknown): void => {
      if (inner) inner.fail(error)
      else this.refuse(error, response, next)
    }
    this.#call(request, response, next, fail)
  }

  /** Has an inner request answered. `from`: the client's, in whose place it is; `routed`: by what has a `next`. */
  dispatch(inner: Inner, from: IncomingMessage, routed: boolean): void {
    const { request, response } = inner
    const fail = (error: unknown): void => inner.fail(error)
    if (this.#handler) {
      inner.enter(this)
      const next = (error?: unknown): void => {
        const passedOn = error === undefined || error === null || error === 'route' || error === 'router'
        fail(passedOn ? new UnansweredError('The handler passed it on') : error)
      }
      if (routed) inner.follow(from)
      return this.#call(request, response, routed ? next : undefined, fail)
    }
    const { server } = from.socket as Socket & { server?: Server }
    // The whole way once more, through all that stands before the cache: `next` knows the client's request alone.
    if (server) server.emit('request', request, response)
    else fail(new UnansweredError('The server is not known'))
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
    reportFailure('next', thrown)
    response.destroy()
  }
}

function warn(error: unknown): void {
  emitWarning(messageOf(error), { type: error instanceof Error ? error.name : 'Warning' }, error)
}
