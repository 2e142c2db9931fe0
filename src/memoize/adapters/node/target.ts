import type { IncomingMessage } from 'node:http'

/** A request as Express and Connect pass it on: `originalUrl` as received, `baseUrl` as removed by routers. */
export type RoutedRequest = IncomingMessage & { originalUrl?: string; baseUrl?: string }

/**
 * The target of a request for the cache key. When a middleware has rewritten the URL, it is the received and the rewritten
 * one, separated by a blank, which no target contains: the handler may read both.
 */
export function requestTarget({ originalUrl, baseUrl, url = '' }: RoutedRequest): string {
  if (originalUrl === undefined || originalUrl === url) return url
  // A router that removes the whole path leaves a slash.
  const isMounted =
    baseUrl !== undefined && [url, url.slice(1)].some((rest) => originalUrl === baseUrl + rest)
  return isMounted ? originalUrl : `${originalUrl} ${url}`
}
