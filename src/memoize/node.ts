/**
 * HTTP handlers that run once for all who ask the same, in front of node:http, Express and Connect.
 *
 * @example
 * import { createServer } from 'node:http'
 * import { Locker } from 'soloflight'
 * import { memoizeHandler } from 'soloflight/memoize/node'
 *
 * const locker = new Locker()
 * createServer(memoizeHandler(locker, { ttl: 60_000 }, (request, response) => response.end('made once'))).listen(8080)
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { checkFunction } from '../kernel/check.ts'
import type { Locker } from '../locker/locker.ts'
import type { Handler, MemoizedHandler, MemoizeHandlerOptions, Middleware } from './node/options.ts'
import { Site } from './node/site.ts'

export type {
  Handler,
  MemoizedHandler,
  MemoizeHandlerOptions,
  Middleware,
  Next,
  NodeRequest,
} from './node/options.ts'

/**
 * Puts a shared cache, as RFC 9111 understands it, before a handler: identical requests run the handler once wherever they
 * come in, and all of them are given its answer. See HttpCacheOptions for what is shared, and for how long.
 *
 * With a `handler`, a listener for node:http: for whole applications too, as every framework has one
 * (`memoizeHandler(locker, options, app)` with an Express app, `app.callback()` with Koa). Without, a middleware of Express
 * or Connect for what follows it.
 *
 * What is to be shared is never asked of the handler by the client's own request, but by an *inner* one, which has no
 * client: its method is GET where the client's is HEAD, it has no conditions and no range, and nothing of it ends when a
 * client goes. It knows the addresses of the client's connection, but not its certificate, and of what was put on the
 * client's request only what a router has found out (`params`, `baseUrl`): what the answer depends on has to be in the
 * URL, in `key` or in Vary. Its 1xx responses and trailers end here.
 *
 * A middleware cannot send an inner request on by `next`, which knows the client's alone. It goes through the server once
 * more from the beginning: what stands before the cache runs for it as well, and is seen in its response, as if the cache
 *
 * What is for one client alone (cookies, methods that change something, Upgrade, Expect) is handled by the client's own
 * request and response, untouched; only the end of what may have changed something waits until that is forgotten everywhere.
 *
 * The fields that were set on a response before the cache are kept unless the answer has them too.
 *
 * When a handler fails, its own client and all who waited with it are told by `next(error)` (those elsewhere with a
 * RemoteError), or by 500. When an inner request is answered by somebody before the cache, or passed on by the handler, all
 * of them ask for themselves, unshared; so they do once the locker is closed.
 *
 * @throws TypeError when an option is not what it should be.
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
  const site = new Site(locker, options, handler)
  return (request, response, next) => site.handle(request, response, next)
}
