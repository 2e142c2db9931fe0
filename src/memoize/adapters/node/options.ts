import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpCacheOptions, HttpRequest } from '../../engine/index.ts'

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
