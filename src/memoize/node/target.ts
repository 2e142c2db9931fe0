import type { IncomingMessage } from 'node:http'

/** What Express and Connect add: the whole URL as it came, and what routers have cut off its path. */
export type Routed = IncomingMessage & { originalUrl?: string; baseUrl?: string }

/**
 * The target of a request as its handler sees it. Where something has rewritten it, by what nobody knows, that is what came
 * and what became of it: handlers may see both. No target has a blank in it.
 */
export function targetSeen({ originalUrl, baseUrl, url = '' }: Routed): string {
  if (originalUrl === undefined || originalUrl === url) return url
  // Connect does not tell what it has cut off.
  const cut = baseUrl ?? originalUrl.slice(0, Math.max(0, originalUrl.length - url.length))
  // Routers leave a slash where they have cut off all of the path.
  const isWhole =
    originalUrl === cut + url ||
    (baseUrl === undefined ? originalUrl.endsWith(url.slice(1)) : originalUrl === cut + url.slice(1))
  return isWhole ? originalUrl : `${originalUrl} ${url}`
}
