/**
 * A shared HTTP cache for handlers of node:http, Express and Connect, and for applications of other frameworks on node:http.
 *
 * @example
 * import { createServer } from 'node:http'
 * import { Locker } from 'soloflight'
 * import { memoizeHandler } from 'soloflight/memoize/node'
 *
 * const locker = new Locker()
 * createServer(memoizeHandler(locker, { ttl: 60_000 }, (request, response) => response.end('computed once'))).listen(8080)
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { checkFunction } from '../kernel/options.ts'
import type { Locker } from '../locker/index.ts'
import {
  type Handler,
  type MemoizedHandler,
  type MemoizeHandlerOptions,
  type Middleware,
  NodeAdapter,
} from './adapters/node/adapter.ts'

export type {
  Handler,
  MemoizedHandler,
  MemoizeHandlerOptions,
  Middleware,
  Next,
  NodeRequest,
} from './adapters/node/adapter.ts'

/**
 * Puts a shared HTTP cache (RFC 9111) in front of a handler. Identical requests call the handler once in all processes, and
 * all of them receive its response. HttpCacheOptions says what is shared, and for how long.
 *
 * ## Forms
 * - With `handler`: returns a listener for node:http. The handler may be a whole application: an Express app,
 *   `app.callback()` of Koa.
 * - Without: returns a middleware for Express or Connect. The cache is in front of the handlers that follow it.
 *
 * ## How the handler is called
 * - The handler receives the request and the response of the first client. The request is changed in place: HEAD becomes
 *   GET; conditions and Range are removed.
 * - The response of the handler is captured. The cache answers every client, the first one too.
 * - Middlewares before the cache run for every client. Their changes to a response while it is written (compression, session
 *   cookies) apply to every client.
 * - `next` leads to the next handler, whose response is shared.
 * - The handler does not see its client disconnect while others wait. When no client waits, its response is closed.
 * - A stale response is refreshed by the first request that received it, after its response has closed. A request whose body was
 *   not read cannot do that: it never receives a stale response that needs a refresh.
 *
 * ## What is shared
 * - The key, and the decision whether to share, use the request as it is when it reaches the cache.
 * - A response is private when its request was changed after that, or received an Authorization or Cookie.
 * - Headers that middlewares set before the cache count for the decision like the handler's own, except Set-Cookie. They are
 *   not stored, unless the handler changes them: each client keeps its own, unless the stored response has the same header.
 * - Set-Cookie lines of the handler are added to those of the middlewares.
 * - 1xx responses reach only the client whose request the handler received. Trailers are dropped.
 *
 * ## What one client alone gets
 * - Requests with cookies, unsafe methods, Upgrade or Expect are handled by the client's own request and response, unchanged.
 * - The end of the response to an unsafe method is delayed until its invalidations have been sent.
 *
 * ## Danger
 * - The cache does not see what middlewares learn about a client in other ways: `request.user` of an API key or of a removed
 *   Cookie, `request.session`, `response.locals`. If a response depends on it, add it to `key` or `vary`, or make the response
 *   `private`.
 * - What a middleware writes to the response while the handler runs (a timeout page, say) is captured as the handler's. It
 *   must not be about one client.
 *
 * ## Errors
 * - An error that the handler throws, or passes to `next`, is answered by the application's error handler, or by 500. That
 *   response is private, unless it states a freshness or `errorTtl` gives it one: the other clients call the handler again.
 * - `onError` is called with what the handler throws.
 * - After `locker.close()` every request calls the handler, without the cache.
 *
 * @throws TypeError for a wrong option.
 */
export function memoizeHandler(locker: Locker, options?: MemoizeHandlerOptions): Middleware
export function memoizeHandler(
  locker: Locker,
  options: MemoizeHandlerOptions | undefined,
  handler: Handler,
): MemoizedHandler
export function memoizeHandler<Req extends IncomingMessage, Res extends ServerResponse>(
  locker: Locker,
  options: MemoizeHandlerOptions | undefined,
  handler: Handler<Req, Res>,
): MemoizedHandler<Req, Res>
export function memoizeHandler(
  locker: Locker,
  options: MemoizeHandlerOptions = {},
  handler?: Handler,
): MemoizedHandler {
  if (handler !== undefined) checkFunction('handler', handler)
  return new NodeAdapter(locker, options, handler).handle
}
