import type { IncomingMessage } from 'node:http'

/** What Express and Connect add: the whole URL as it came, and what routers have cut off its path. */
export type Routed = IncomingMessage & { originalUrl?: string; baseUrl?: string }

/**
 * The target of a request as its handler sees it. Where that is not what came, less what a router tells that it has cut
 * off, it is both: handlers may see both, and what has rewritten it may have looked at anything. No target has a blank.
 */
export function targetSeen({ originalUrl, baseUrl, url = '' }: Routed): string {
  if (originalUrl === undefined || originalUrl === url) return url
  // Routers leave a slash where they have cut off all of the path.
  const isCut = baseUrl !== undefined && [url, url.slice(1)].some((rest) => originalUrl === baseUrl + rest)
  return isCut ? originalUrl : `${originalUrl} ${url}`
}
