import type { HeaderFields } from '../engine/message.ts'
import { combinedField, linesOf } from './fields.ts'
import { parseHttpDate } from './http-date.ts'

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
