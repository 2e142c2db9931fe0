import { parseHttpDate } from '../../kernel/http-date.ts'
import type { HeaderFields, HttpResponse } from '../engine/message.ts'
import { combinedField, linesOf, listField } from './fields.ts'

/** Request fields that make a response depend on what the client has already. RFC 9110 §13.1, §14.2. */
export const CONDITIONAL_FIELDS = [
  'if-none-match',
  'if-modified-since',
  'if-match',
  'if-unmodified-since',
  'if-range',
  'range',
] as const

const opaqueTag = (tag: string): string => (tag.startsWith('W/') ? tag.slice(2) : tag)

/** Whether the request's conditions select 304: the client has this response already. RFC 9111 §4.3.2. */
export function notModified(request: HeaderFields, response: HeaderFields): boolean {
  if (request['if-none-match'] !== undefined) {
    const tags = listField(request, 'if-none-match')
    const etag = combinedField(response, 'etag')
    return (
      tags.includes('*') || (etag !== undefined && tags.some((tag) => opaqueTag(tag) === opaqueTag(etag)))
    )
  }
  const since = parseHttpDate(combinedField(request, 'if-modified-since'))
  if (since === undefined) return false
  const changed = parseHttpDate(combinedField(response, 'last-modified') ?? combinedField(response, 'date'))
  return changed !== undefined && changed <= since
}

/** The conditional fields by which the origin validates a stored response. RFC 9111 §4.3.1. */
export function validatorsOf(stored: HeaderFields): HeaderFields {
  const etag = linesOf(stored, 'etag')[0]
  const changed = linesOf(stored, 'last-modified')[0]
  return {
    ...(etag !== undefined && { 'if-none-match': etag }),
    ...(changed !== undefined && { 'if-modified-since': changed }),
  }
}

/** Fields of the stored bytes, which a 304 does not update. RFC 9111 §3.2. */
const NOT_UPDATED_BY_304: ReadonlySet<string> = new Set([
  'content-encoding',
  'content-length',
  'content-md5',
  'content-range',
  // The stored tag is the one that was validated. Some servers send it back in another form.
  'etag',
])

/** The fields of a stored response, freshened by those of the 304 that validates it. RFC 9111 §4.3.4. */
export function freshenedFields(stored: HeaderFields, confirmation: HeaderFields): HeaderFields {
  const fields: HeaderFields = Object.assign(Object.create(null), stored)
  // It was the age of the stored response, before the validation.
  delete fields['age']
  for (const name in confirmation) {
    if (!NOT_UPDATED_BY_304.has(name)) fields[name] = confirmation[name]
  }
  return fields
}

/** A part of a body, both ends included; or that the body has no such part. */
export type ByteRange = { first: number; last: number } | 'unsatisfiable'

const SINGLE_RANGE = /^bytes=(\d*)-(\d*)$/i

/**
 * The part of a body of `length` bytes that a request selects. Undefined: the whole body, also for several ranges and for
 * an invalid Range. RFC 9110 §14.2.
 */
export function requestedRange(
  request: HeaderFields,
  response: HeaderFields,
  length: number,
): ByteRange | undefined {
  const asked = linesOf(request, 'range')
  const [, from = '', to = ''] = (asked.length === 1 && SINGLE_RANGE.exec(asked[0]?.trim() ?? '')) || []
  if ((from === '' && to === '') || !ifRangeMatches(request, response)) return undefined
  if (from === '') return Number(to) > 0 && length > 0 ? suffixRange(Number(to), length) : 'unsatisfiable'
  const first = Number(from)
  const last = to === '' ? length - 1 : Number(to)
  if (to !== '' && last < first) return undefined
  return first < length ? { first, last: Math.min(last, length - 1) } : 'unsatisfiable'
}

function suffixRange(count: number, length: number): ByteRange {
  return { first: Math.max(0, length - count), last: length - 1 }
}

/** Whether If-Range matches the response, by a strong tag or the exact date. RFC 9110 §13.1.5. */
function ifRangeMatches(request: HeaderFields, response: HeaderFields): boolean {
  const condition = combinedField(request, 'if-range')
  if (condition === undefined) return true
  const tag = combinedField(response, 'etag')
  if (condition.startsWith('"')) return condition === tag
  const changed = parseHttpDate(combinedField(response, 'last-modified'))
  return changed !== undefined && changed === parseHttpDate(condition)
}

/** Fields that describe the content, which a 304 does not have. RFC 9110 §15.4.5. */
const CONTENT_FIELDS: ReadonlySet<string> = new Set([
  'content-encoding',
  'content-language',
  'content-length',
  'content-md5',
  'content-range',
  'content-type',
])

function withoutFields(headers: string[], unwanted: (name: string) => boolean): string[] {
  const kept: string[] = []
  for (let at = 0; at < headers.length; at += 2) {
    if (!unwanted(headers[at] as string)) kept.push(headers[at] as string, headers[at + 1] as string)
  }
  return kept
}

/** The response as 304, without its content. */
export function asNotModified(response: HttpResponse): HttpResponse {
  const headers = withoutFields(response.headers, (name) => CONTENT_FIELDS.has(name))
  return { status: 304, statusText: undefined, headers, body: undefined }
}

/** The response as 206 or 416, if the request selects a part of `body`. */
export function asPartial(
  request: HeaderFields,
  response: HeaderFields,
  body: Buffer,
  whole: HttpResponse,
): HttpResponse {
  const part = requestedRange(request, response, body.length)
  if (part === undefined) return whole
  const headers = withoutFields(
    whole.headers,
    (name) => name === 'content-length' || name === 'content-range',
  )
  if (part === 'unsatisfiable') {
    headers.push('content-range', `bytes */${body.length}`, 'content-length', '0')
    return { status: 416, statusText: undefined, headers, body: undefined }
  }
  const { first, last } = part
  headers.push(
    'content-range',
    `bytes ${first}-${last}/${body.length}`,
    'content-length',
    `${last - first + 1}`,
  )
  return { status: 206, statusText: undefined, headers, body: body.subarray(first, last + 1) }
}
