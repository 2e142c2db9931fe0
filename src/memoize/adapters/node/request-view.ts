import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { fromRawHeaders, type HeaderFields, type OriginRequest } from '../../engine/index.ts'
import { linesOf } from '../../policy/fields.ts'
import { equalValues } from './fields.ts'
import { dataProperty, type Properties } from './property-overlay.ts'

/** Properties of a client's request that the view replaces. */
export const VIEW_PROPERTIES = [
  'method',
  'httpVersion',
  'httpVersionMajor',
  'httpVersionMinor',
  'headers',
  'headersDistinct',
  'rawHeaders',
] as const

/**
 * The properties by which a client's request becomes the OriginRequest, for a response that may be shared.
 * `routedHeaders`: its headers when the cache decided about it.
 */
export function originRequestView(
  request: IncomingMessage,
  routedHeaders: HeaderFields,
  originRequest: OriginRequest,
): Properties {
  const headers = viewHeaders(request, routedHeaders, originRequest)
  const raw = rawHeadersOf(request, headers)
  const values: Record<(typeof VIEW_PROPERTIES)[number], unknown> = {
    method: originRequest.method,
    // A shared response must not depend on the protocol version of one client.
    httpVersion: '1.1',
    httpVersionMajor: 1,
    httpVersionMinor: 1,
    headers,
    headersDistinct: headersDistinctOf(raw),
    rawHeaders: raw,
  }
  return new Map(VIEW_PROPERTIES.map((name) => [name, dataProperty(values[name])]))
}

/** The current values of the headers, except those that differ in the OriginRequest. */
function viewHeaders(
  request: IncomingMessage,
  routedHeaders: HeaderFields,
  { method, headers: originHeaders }: OriginRequest,
): IncomingHttpHeaders {
  const headers: [string, string | string[] | undefined][] = []
  const missing = new Set(Object.keys(originHeaders))
  for (const [key, value] of Object.entries(request.headers)) {
    const name = key.toLowerCase()
    // Body parsers read Transfer-Encoding to see whether there is a body.
    const framesBody = name === 'transfer-encoding' && method !== 'GET'
    if (framesBody || equalValues(originHeaders[name], routedHeaders[name])) headers.push([key, value])
    else if (originHeaders[name] !== undefined) headers.push([key, joined(name, originHeaders[name])])
    missing.delete(name)
  }
  for (const name of missing) headers.push([name, joined(name, originHeaders[name])])
  // fromEntries() defines properties: a header named __proto__ does not set the prototype.
  return Object.fromEntries(headers)
}

/** The lines of a header as Node joins them. */
function joined(name: string, value: HeaderFields[string]): string | undefined {
  return Array.isArray(value) ? value.join(name === 'cookie' ? '; ' : ', ') : value
}

/** Headers as name, value. Headers that no middleware has changed keep their lines as received. */
function rawHeadersOf({ rawHeaders }: IncomingMessage, headers: IncomingHttpHeaders): string[] {
  const received = fromRawHeaders(rawHeaders)
  return Object.entries(headers).flatMap(([name, value]) => {
    const lines = isUnchanged(name, received[name], value) ? linesOf(received, name) : [value ?? []].flat()
    return lines.flatMap((line) => [name, String(line)])
  })
}

/** Whether a value is what Node has made of these lines. */
function isUnchanged(
  name: string,
  lines: HeaderFields[string],
  value: string | string[] | undefined,
): boolean {
  return lines !== undefined && !Array.isArray(value) && value === joined(name, lines)
}

function headersDistinctOf(raw: readonly string[]): NodeJS.Dict<string[]> {
  const fields = fromRawHeaders(raw)
  return Object.fromEntries(Object.keys(fields).map((name) => [name, [...linesOf(fields, name)]]))
}
