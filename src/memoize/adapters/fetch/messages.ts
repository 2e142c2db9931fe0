import type { HeaderFields, HttpResponse, OriginResponse } from '../../engine/index.ts'
import { toRawHeaders } from '../../policy/fields.ts'

/** Statuses whose responses cannot have a body, not even an empty one. */
const BODILESS: ReadonlySet<number> = new Set([101, 103, 204, 205, 304])

/** Names are in lower case already, and only Set-Cookie comes in several lines. */
export function fieldsOf(headers: Headers): HeaderFields {
  const fields: HeaderFields = Object.create(null)
  headers.forEach((value, name) => {
    fields[name] = value
  })
  if (fields['set-cookie'] !== undefined) fields['set-cookie'] = headers.getSetCookie()
  return fields
}

/** Name and value, one after the other: a field may come in several lines. */
export function pairsOf(raw: readonly string[]): [string, string][] {
  return Array.from({ length: raw.length / 2 }, (_, at) => [raw[at * 2] as string, raw[at * 2 + 1] as string])
}

/** The request that a handler is to answer for all. */
export function requestOf(
  incoming: Request,
  { method, headers, signal }: { method: string; headers: HeaderFields; signal: AbortSignal | undefined },
): Request {
  const init = { method, headers: pairsOf(toRawHeaders(headers)), ...(signal && { signal }) }
  if (method === 'GET') return new Request(incoming.url, init)
  // It may be asked for more than once.
  const { body } = incoming.clone()
  return new Request(incoming.url, { ...init, body, duplex: 'half' })
}

/** What a handler has returned, as the cache takes it. */
export function originResponseOf({ status, statusText, headers, body }: Response): OriginResponse {
  return { status, statusText: statusText === '' ? undefined : statusText, headers: fieldsOf(headers), body }
}

/** Fields as a Response takes them: made once for all that have the same. */
const inits = new WeakMap<readonly string[], Record<string, string> | [string, string][]>()

function initOf(raw: readonly string[]): Record<string, string> | [string, string][] {
  const known = inits.get(raw)
  if (known) return known
  const pairs = pairsOf(raw)
  // Servers need least time for a record, but it cannot have a field twice.
  const record = Object.fromEntries(pairs)
  const init = Object.keys(record).length === pairs.length ? record : pairs
  inits.set(raw, init)
  return init
}

export function responseOf({ status, statusText, headers, body }: HttpResponse): Response {
  const init = { status, headers: initOf(headers), ...(statusText !== undefined && { statusText }) }
  if (body === undefined || BODILESS.has(status)) return new Response(null, init)
  return new Response(Buffer.isBuffer(body) ? body : ReadableStream.from(body), init)
}

/** A response of a handler with what the cache tells of it. */
export function toldOf(
  { status, statusText, headers, body }: Response,
  { headers: raw }: HttpResponse,
): Response {
  const told = new Headers(headers)
  const at = raw.lastIndexOf('cache-status')
  if (at !== -1) told.set('cache-status', raw[at + 1] as string)
  return new Response(body, { status, statusText, headers: told })
}
