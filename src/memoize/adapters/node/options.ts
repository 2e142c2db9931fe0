import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpCacheOptions, HttpRequest } from '../../engine/index.ts'

/** A request as options see it. */
export interface NodeRequest extends HttpRequest {
  /** Undefined where it is no request, but a URL that another request has changed. */
  incoming?: IncomingMessage | undefined
}

/** Options of a handler on node:http: those of the cache, and these. */
export interface MemoizeHandlerOptions extends HttpCacheOptions<NodeRequest> {
  /**
   * Told of everything that a handler throws or rejects with that was given as the third argument: its clients are
   * answered by 500, or what `next` makes of it.
   * @default process.emitWarning
   */
  onError?: ((error: unknown, request: IncomingMessage) => void) | undefined
}

/** What `next` is of Express and Connect. */
export type Next = (error?: unknown) => void

/**
 * What answers requests: for node:http, or as Express and Connect have it. It has a `next` only where it was asked by
 * something that has one.
 */
export type Handler<
  Req extends IncomingMessage = IncomingMessage,
  Res extends ServerResponse = ServerResponse,
> = (request: Req, response: Res, next: Next) => unknown

/** A middleware of Express and Connect. */
export type Middleware = (request: IncomingMessage, response: ServerResponse, next: Next) => void

/** A listener for node:http, which serves Express and Connect at a route too. */
export type MemoizedHandler<
  Req extends IncomingMessage = IncomingMessage,
  Res extends ServerResponse = ServerResponse,
> = (request: Req, response: Res, next?: Next) => void
