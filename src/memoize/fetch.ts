/**
 * Fetch handlers, from Request to Response, that run once for all who ask the same: Hono, and whatever else is built on
 * them.
 *
 * @example
 * import { serve } from '@hono/node-server'
 * import { Hono } from 'hono'
 * import { Locker } from 'soloflight'
 * import { memoizeHandler } from 'soloflight/memoize/fetch'
 *
 * const app = new Hono().get('/', (c) => c.text('made once'))
 * serve({ fetch: memoizeHandler(new Locker(), { ttl: 60_000 }, app.fetch) })
 */

import { checkFunction } from '../kernel/options.ts'
import type { Locker } from '../locker/locker.ts'
import { FetchExchange, type FetchHandler } from './adapters/fetch/exchange.ts'
import { responseOf } from './adapters/fetch/messages.ts'
import { HTTP_CACHE_DEFAULTS, HttpCache, type HttpCacheOptions, type HttpRequest } from './engine/index.ts'

export type { FetchHandler } from './adapters/fetch/exchange.ts'

/** A request as options see it. `url` is its path and query, the host is the field of that name. */
export interface FetchRequest extends HttpRequest {
  /** As the client sent it. Undefined where it is no request, but a URL that another request has changed. */
  incoming?: Request | undefined
}

/** Options of a Fetch handler. */
export type MemoizeHandlerOptions = HttpCacheOptions<FetchRequest>

/** A handler that is behind a cache. What this process's cache has is returned at once, not as a promise. */
export type MemoizedFetch<Rest extends unknown[]> = (
  request: Request,
  ...rest: Rest
) => Response | Promise<Response>

/**
 * Puts a shared cache, as RFC 9111 understands it, before a handler: identical requests run the handler once wherever they
 * come in, and all of them are given its response. See HttpCacheOptions for what is shared, and for how long. Arguments
 * beside the request go to the handler with it.
 *
 * For what is to be shared the handler is given a request that was made for it, GET where the client's is HEAD, without
 * conditions and range; it goes on when its client has gone and others wait, and may be made to refresh what was answered
 * already. What is for one client alone is handled by the client's own request.
 *
 * @throws TypeError when an option is not what it should be. (rejects with) what the handler threw for this very request;
 * AbortedError after the request's `signal`.
 */
export function memoizeHandler<Rest extends unknown[] = []>(
  locker: Locker,
  options: MemoizeHandlerOptions | undefined,
  handler: FetchHandler<Rest>,
): MemoizedFetch<Rest> {
  checkFunction('handler', handler)
  const cache = new HttpCache(locker, options)
  const methods: ReadonlySet<string> = new Set(options?.methods ?? HTTP_CACHE_DEFAULTS.methods)
  return (request, ...rest) => {
    const exchange = new FetchExchange(request, (request) => handler(request, ...rest), methods)
    const answer = cache.handle(exchange, exchange.origin)
    if (!(answer instanceof Promise)) return responseOf(answer)
    return answer.then(
      (answer) => exchange.finish(answer),
      (error) => exchange.fail(error),
    )
  }
}
