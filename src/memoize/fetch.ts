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
import type { Locker } from '../locker/index.ts'
import { type FetchHandler, type FetchRequest, handleRequest } from './adapters/fetch/adapter.ts'
import { HttpCache, type HttpCacheOptions } from './index.ts'

export type { FetchHandler, FetchRequest } from './adapters/fetch/adapter.ts'

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
  return (request, ...rest) => handleRequest(cache, request, (request) => handler(request, ...rest))
}
