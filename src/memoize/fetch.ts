/**
 * A shared HTTP cache for Fetch handlers (functions from Request to Response): Hono, and other frameworks that have one.
 *
 * @example
 * import { serve } from '@hono/node-server'
 * import { Hono } from 'hono'
 * import { Locker } from 'soloflight'
 * import { memoizeHandler } from 'soloflight/memoize/fetch'
 *
 * const app = new Hono().get('/', (c) => c.text('computed once'))
 * serve({ fetch: memoizeHandler(new Locker(), { ttl: 60_000 }, app.fetch) })
 */

import { checkFunction } from '../kernel/options.ts'
import type { Locker } from '../locker/locker.ts'
import { toFetchResponse } from './adapters/fetch/messages.ts'
import { type FetchHandler, RequestContext } from './adapters/fetch/request-context.ts'
import { HTTP_CACHE_DEFAULTS, HttpCache, type HttpCacheOptions, type HttpRequest } from './engine/index.ts'

export type { FetchHandler } from './adapters/fetch/request-context.ts'

/** A request as options see it. `url` is its path and query; the host is in `headers.host`. */
export interface FetchRequest extends HttpRequest {
  /** The client's request. Undefined for a URL that another request has changed. */
  incoming?: Request | undefined
}

/** Options of a Fetch handler. */
export type MemoizeHandlerOptions = HttpCacheOptions<FetchRequest>

/** A handler behind a cache. It returns a response from the in-process cache at once, not as a promise. */
export type MemoizedFetch<Rest extends unknown[]> = (
  request: Request,
  ...rest: Rest
) => Response | Promise<Response>

/**
 * Puts a shared HTTP cache (RFC 9111) in front of a Fetch handler. Identical requests call the handler once in all processes,
 * and all of them receive its response. HttpCacheOptions says what is shared, and for how long. Further arguments are passed
 * on to the handler.
 *
 * **For a shared response** the handler receives a request of its own: GET instead of HEAD, without conditions and Range. It
 * continues when its client disconnects while others wait. It is also called in the background, to refresh a stale response.
 *
 * **For one client alone** the handler receives the client's own request.
 *
 * @throws TypeError for a wrong option.
 * @throws (rejects with) the handler's error for this request; AbortedError when the request's `signal` aborts.
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
    const context = new RequestContext(request, (request) => handler(request, ...rest), methods)
    const result = cache.handle(context, context.origin)
    if (!(result instanceof Promise)) return toFetchResponse(result)
    return result.then(
      (result) => context.respond(result),
      (error) => context.fail(error),
    )
  }
}
