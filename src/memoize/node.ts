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
import { checkFunction } from '../kernel/options.ts'
import type { Locker } from '../locker/locker.ts'
import { Site } from './adapters/node/adapter.ts'
import type { Handler, MemoizedHandler, MemoizeHandlerOptions, Middleware } from './adapters/node/options.ts'

export type {
  Handler,
  MemoizedHandler,
  MemoizeHandlerOptions,
  Middleware,
  Next,
  NodeRequest,
} from './adapters/node/options.ts'

/**
 * Puts a shared cache, as RFC 9111 understands it, before a handler: identical requests run the handler once wherever they
 * come in, and all of them are given its answer. See HttpCacheOptions for what is shared, and for how long.
 *
 * With a `handler`, a listener for node:http: for whole applications too, as every framework has one
 * (`memoizeHandler(locker, options, app)` with an Express app, `app.callback()` with Koa). Without, a middleware of Express
 * or Connect for what follows it.
 *
 * What is to be shared is asked of the handler by the request and response of the first client. The request is changed in
 * place: its method is GET where the client's is HEAD, it has no conditions and no range. What the handler writes to the
 * response is captured, and the client is answered by the cache. What stands before the cache runs once for every client,
 * and what it does when a response is written (compression, the cookie of a session) is done to the answer of each.
 *
 * What is judged, and keyed, is the request as it is when it comes to the cache, which is what the handler sees. An answer
 * is never shared when its request has changed since, or has an Authorization or a Cookie by then that it had not.
 *
 * Danger: what something before the cache has found out about a client in other ways (`request.user` by an API key, or by a
 * Cookie that it then took away; `request.session`; `response.locals`) is there for the handler, but the cache does not see
 * it. Where an answer depends on it, it must be in `key` or `vary`, or the answer must be `private`. And what something before
 * the cache writes to a response while the handler runs (a timeout, say) is taken for the handler's: it must not be about one
 * client.
 *
 * Fields that were set on a response before the cache are judged like the handler's own, Set-Cookie excepted, but belong to
 * that client alone: they are not kept unless the handler changes them, and every client's own stay, unless the answer has
 * them too. Cookies are added to those of before.
 *
 * A client that leaves is not seen by the handler while others wait; when nobody does, its response is closed. A stale
 * answer is renewed by the first request that has got it to the end: what the server does at the end of a response has been
 * done by then. A request with a body that nobody has read is not given a stale answer that it would have to renew. 1xx responses
 * reach that client alone; trailers none.
 *
 * What is for one client alone (cookies, methods that change something, Upgrade, Expect) is handled by the client's own
 * request and response, untouched; only the end of what may have changed something waits until that is forgotten everywhere.
 *
 * What the handler passes on by `next` is answered by what follows, and that is shared. An error that it throws or gives to
 * `next` is answered by the application's page of errors, or by 500, for its own client alone (unless that page states a
 * freshness, or `errorTtl` gives it one); the others ask anew. Once the locker is closed all ask for themselves, unshared.
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
