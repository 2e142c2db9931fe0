import { endToEndFields, linesOf } from '../policy/fields.ts'
import { targetOf } from '../policy/key.ts'
import type { HttpRequest, OriginResponse } from './message.ts'

/** URLs in Location and Content-Location that are looked at: an honest response has one in each. */
const MAX_LOCATIONS = 16

/**
 * The requests whose stored responses an unsafe request has invalidated, judged by its response. None unless it succeeded;
 * otherwise a GET of its own target, and of the URLs in Location and Content-Location on the same host. RFC 9111 §4.4.
 */
export function invalidatedBy(request: HttpRequest, response: OriginResponse): HttpRequest[] {
  const target = targetOf(request)
  if (!target || response.status < 200 || response.status >= 400) return []
  const base = `http://${target.host || 'nowhere.invalid'}${target.path}`
  const fields = endToEndFields(response.headers)
  const locations = [...linesOf(fields, 'location'), ...linesOf(fields, 'content-location')]
  const named = locations.slice(0, MAX_LOCATIONS).flatMap((location) => {
    if (!URL.canParse(location, base)) return []
    const { host, pathname, search } = new URL(location, base)
    return host === new URL(base).host ? [pathname + search] : []
  })
  const headers = { ...request.headers, host: target.host }
  const { scheme } = request
  return [
    // The spread keeps the adapter's own fields: the user's `key` sees what it would see of a GET.
    { ...request, method: 'GET', url: target.path, headers, scheme, signal: undefined },
    ...named.map((url) => ({ method: 'GET', url, headers, scheme })),
  ]
}
