import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HeaderFields } from '../../engine/index.ts'

/**
 * The fields of a request as they are by now, names in lower case: what stands before the cache may have taken some away,
 * or have put others in their place. They are what is judged, because they are what the handler is going to see. Several
 * Host lines, of which Node takes the first, stay apart.
 */
export function presentFields({ headers, rawHeaders }: IncomingMessage): HeaderFields {
  const fields: HeaderFields = Object.create(null)
  for (const given in headers) {
    const lines = textOf(headers[given] ?? undefined)
    if (lines === undefined) continue
    const name = given.toLowerCase()
    const known = fields[name]
    fields[name] = known === undefined ? lines : [known, lines].flat()
  }
  const hosts = hostsIn(rawHeaders)
  if (hosts !== undefined && fields['host'] === hosts[0]) fields['host'] = hosts
  return fields
}

/** The Host lines of a request, where there are several. */
function hostsIn(raw: readonly string[]): string[] | undefined {
  let count = 0
  for (let at = 0; at < raw.length; at += 2) if (isHost(raw[at] as string)) count++
  return count > 1 ? raw.filter((_, at) => at % 2 === 1 && isHost(raw[at - 1] as string)) : undefined
}

function isHost(name: string): boolean {
  return name.length === 4 && name.toLowerCase() === 'host'
}

const NONE: HeaderFields = Object.freeze(Object.create(null))

/** The fields that a response has by now, names in lower case. Not to be changed. */
export function fieldsOf(response: ServerResponse): HeaderFields {
  if (response.getHeaderNames().length === 0) return NONE
  const fields: HeaderFields = Object.create(null)
  const headers = response.getHeaders()
  for (const name in headers) fields[name] = textOf(headers[name])
  return fields
}

/** A value of a field, as it goes over the wire. */
function textOf(value: unknown): string | string[] | undefined {
  if (typeof value === 'string' || value === undefined) return value
  return Array.isArray(value) ? value.map(String) : String(value)
}

/** Whether two messages have the same fields. */
export function haveSameFields(one: HeaderFields, other: HeaderFields): boolean {
  const names = Object.keys(one)
  return (
    names.length === Object.keys(other).length && names.every((name) => isSameField(one[name], other[name]))
  )
}

export function isSameField(one: HeaderFields[string], other: HeaderFields[string]): boolean {
  if (!Array.isArray(one) || !Array.isArray(other)) return one === other
  return one.length === other.length && one.every((line, i) => line === other[i])
}
