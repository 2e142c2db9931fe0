import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HeaderFields } from '../../engine/index.ts'

/**
 * The current headers of a request, names in lower case. Middlewares before the cache may have changed them; the cache
 * decides by these values because the handler sees them. Several Host lines stay separate, although Node keeps the first.
 */
export function requestHeaders({ headers, rawHeaders }: IncomingMessage): HeaderFields {
  const fields: HeaderFields = Object.create(null)
  for (const key in headers) {
    const value = headerValue(headers[key] ?? undefined)
    if (value === undefined) continue
    const name = key.toLowerCase()
    const known = fields[name]
    fields[name] = known === undefined ? value : [known, value].flat()
  }
  const hosts = hostsIn(rawHeaders)
  if (hosts !== undefined && fields['host'] === hosts[0]) fields['host'] = hosts
  return fields
}

/** The Host lines of a request, if there are several. */
function hostsIn(raw: readonly string[]): string[] | undefined {
  let count = 0
  for (let at = 0; at < raw.length; at += 2) if (isHost(raw[at] as string)) count++
  return count > 1 ? raw.filter((_, at) => at % 2 === 1 && isHost(raw[at - 1] as string)) : undefined
}

function isHost(name: string): boolean {
  return name.length === 4 && name.toLowerCase() === 'host'
}

const NO_HEADERS: HeaderFields = Object.freeze(Object.create(null))

/** The headers that are set on a response, names in lower case. Do not change the result. */
export function responseHeaders(response: ServerResponse): HeaderFields {
  if (response.getHeaderNames().length === 0) return NO_HEADERS
  const fields: HeaderFields = Object.create(null)
  const headers = response.getHeaders()
  for (const name in headers) fields[name] = headerValue(headers[name])
  return fields
}

/** The value of a header as text: handlers and middlewares set numbers, too. */
function headerValue(value: unknown): string | string[] | undefined {
  if (typeof value === 'string' || value === undefined) return value
  return Array.isArray(value) ? value.map(String) : String(value)
}

/** Whether two messages have the same headers. */
export function equalHeaders(one: HeaderFields, other: HeaderFields): boolean {
  const names = Object.keys(one)
  return (
    names.length === Object.keys(other).length && names.every((name) => equalValues(one[name], other[name]))
  )
}

export function equalValues(one: HeaderFields[string], other: HeaderFields[string]): boolean {
  if (!Array.isArray(one) || !Array.isArray(other)) return one === other
  return one.length === other.length && one.every((line, i) => line === other[i])
}
