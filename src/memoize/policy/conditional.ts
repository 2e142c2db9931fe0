import type { HeaderFields } from '../engine/message.ts'
import { fieldOf, linesOf, listOf } from './fields.ts'
import { httpDate } from './http-date.ts'

/** Request fields that make an answer depend on what the client has already. */
export const CONDITIONS = [
  'if-none-match',
  'if-modified-since',
  'if-match',
  'if-unmodified-since',
  'if-range',
  'range',
] as const

const weak = (tag: string): string => (tag.startsWith('W/') ? tag.slice(2) : tag)

/** Whether the client has this very response already, so that 304 is the answer. RFC 9111 §4.3.2. */
export function notModified(request: HeaderFields, response: HeaderFields): boolean {
  if (request['if-none-match'] !== undefined) {
    const tags = listOf(request, 'if-none-match')
    const etag = fieldOf(response, 'etag')
    return tags.includes('*') || (etag !== undefined && tags.some((tag) => weak(tag) === weak(etag)))
  }
  const since = httpDate(fieldOf(request, 'if-modified-since'))
  if (since === undefined) return false
  const changed = httpDate(fieldOf(response, 'last-modified') ?? fieldOf(response, 'date'))
  return changed !== undefined && changed <= since
}

/** The conditions under which the origin need not send a stored response again. RFC 9111 §4.3.1. */
export function validatorsOf(stored: HeaderFields): HeaderFields {
  const etag = linesOf(stored, 'etag')[0]
  const changed = linesOf(stored, 'last-modified')[0]
  return {
    ...(etag !== undefined && { 'if-none-match': etag }),
    ...(changed !== undefined && { 'if-modified-since': changed }),
  }
}

/** Fields that describe the bytes that are kept: a 304 cannot change those. RFC 9111 §3.2. */
const OF_THE_BYTES: ReadonlySet<string> = new Set([
  'content-encoding',
  'content-length',
  'content-md5',
  'content-range',
  // The one tag that was asked about names these bytes. Servers are known to answer with another form of it.
  'etag',
])

/** The fields of a stored response after the origin has confirmed it by a 304 with these. RFC 9111 §4.3.4. */
export function freshened(stored: HeaderFields, confirmation: HeaderFields): HeaderFields {
  const fields: HeaderFields = Object.assign(Object.create(null), stored)
  // That was the age of the old response.
  delete fields['age']
  for (const name in confirmation) {
    if (!OF_THE_BYTES.has(name)) fields[name] = confirmation[name]
  }
  return fields
}
