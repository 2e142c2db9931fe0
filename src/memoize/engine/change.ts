import { endToEnd, linesOf } from '../policy/fields.ts'
import { targetOf } from '../policy/key.ts'
import type { HttpRequest, OriginResponse } from './message.ts'

/** A response names one place by each of two fields. Where it names more, at most so many are looked at. */
const MAX_NAMED = 16

/**
 * The requests whose stored responses a change may have made wrong, by the response to it: none unless it succeeded; then
 * those for its own target, and for what Location and Content-Location name on the same host. RFC 9111 §4.4.
 */
export function changedBy(request: HttpRequest, response: OriginResponse): HttpRequest[] {
  const target = targetOf(request)
  if (!target || response.status < 200 || response.status >= 400) return []
  const base = `http://${target.host || 'nowhere.invalid'}${target.path}`
  const fields = endToEnd(response.headers)
  const locations = [...linesOf(fields, 'location'), ...linesOf(fields, 'content-location')]
  const named = locations.slice(0, MAX_NAMED).flatMap((location) => {
    if (!URL.canParse(location, base)) return []
    const { host, pathname, search } = new URL(location, base)
    return host === new URL(base).host ? [pathname + search] : []
  })
  const headers = { ...request.headers, host: target.host }
  const { scheme } = request
  return [
    // It came as a request: the user's functions see that of it which they would see of a GET.
    { ...request, method: 'GET', url: target.path, headers, scheme, signal: undefined },
    ...named.map((url) => ({ method: 'GET', url, headers, scheme })),
  ]
}
