import type { HeaderFields, HttpResponse, OriginResponse } from '../../engine/index.ts'
import { toRawHeaders } from '../../policy/fields.ts'

/** Statuses whose responses cannot have a body, not even an empty one. */
const BODILESS: ReadonlySet<number> = new Set([101, 103, 204, 205, 304])

/** Headers as HeaderFields. The class Headers lowers names, and joins the lines of every header but Set-Cookie. */
export function headerFields(headers: Headers): HeaderFields {
  const fields: HeaderFields = Object.create(null)
  headers.forEach((value, name) => {
    fields[name] = value
  })
  if (fields['set-cookie'] !== undefined) fields['set-cookie'] = headers.getSetCookie()
  return fields
}

/** Raw headers (name, value, …) as pairs. */
export function headerPairs(raw: readonly string[]): [string, string][] {
  return Array.from({ length: raw.length / 2 }, (_, at) => [raw[at * 2] as string, raw[at * 2 + 1] as string])
}

/** The request that the handler receives for a response that may be shared. */
export function originRequestToFetch(
  incoming: Request,
  { method, headers, signal }: { method: string; headers: HeaderFields; signal: AbortSignal | undefined },
): Request {
  const init = { method, headers: headerPairs(toRawHeaders(headers)), ...(signal && { signal }) }
  if (method === 'GET') return new Request(incoming.url, init)
  // The handler may be called more than once for this request.
  const { body } = incoming.clone()
  return new Request(incoming.url, { ...init, body, duplex: 'half' })
}

/** The response of a handler as the cache takes it. */
export function fetchToOriginResponse({ status, statusText, headers, body }: Response): OriginResponse {
  return {
    status,
    statusText: statusText === '' ? undefined : statusText,
    headers: headerFields(headers),
    body,
  }
}

/** Raw headers in the form that Response takes. Converted once: responses of the cache share the array. */
const inits = new WeakMap<readonly string[], Record<string, string> | [string, string][]>()

function responseInit(raw: readonly string[]): Record<string, string> | [string, string][] {
  const known = inits.get(raw)
  if (known) return known
  const pairs = headerPairs(raw)
  // A record is fastest, but cannot have a name twice.
  const record = Object.fromEntries(pairs)
  const init = Object.keys(record).length === pairs.length ? record : pairs
  inits.set(raw, init)
  return init
}

/** The response of the cache as a Response. */
export function toFetchResponse({ status, statusText, headers, body }: HttpResponse): Response {
  const init = { status, headers: responseInit(headers), ...(statusText !== undefined && { statusText }) }
  if (body === undefined || BODILESS.has(status)) return new Response(null, init)
  return new Response(Buffer.isBuffer(body) ? body : ReadableStream.from(body), init)
}

/** A response of the handler with the Cache-Status of the cache. */
export function withCacheStatus(
  { status, statusText, headers, body }: Response,
  { headers: raw }: HttpResponse,
): Response {
  const result = new Headers(headers)
  const at = raw.lastIndexOf('cache-status')
  if (at !== -1) result.set('cache-status', raw[at + 1] as string)
  return new Response(body, { status, statusText, headers: result })
}
