import type { HeaderFields } from '../engine/message.ts'
import { fieldOf, linesOf } from './fields.ts'
import { httpDate } from './http-date.ts'

/** A part of a body, both ends counted; or that none of what was asked for exists. */
export type Part = { first: number; last: number } | 'unsatisfiable'

const ONE_RANGE = /^bytes=(\d*)-(\d*)$/i

/**
 * The part of a body of `length` bytes that a request asks for. Undefined: the whole one, which also answers several
 * ranges at once, and what cannot be understood. RFC 9110 §14.2.
 */
export function partOf(request: HeaderFields, response: HeaderFields, length: number): Part | undefined {
  const asked = linesOf(request, 'range')
  const [, from = '', to = ''] = (asked.length === 1 && ONE_RANGE.exec(asked[0]?.trim() ?? '')) || []
  if ((from === '' && to === '') || !sameAs(request, response)) return undefined
  if (from === '') return Number(to) > 0 && length > 0 ? suffix(Number(to), length) : 'unsatisfiable'
  const first = Number(from)
  const last = to === '' ? length - 1 : Number(to)
  if (to !== '' && last < first) return undefined
  return first < length ? { first, last: Math.min(last, length - 1) } : 'unsatisfiable'
}

function suffix(count: number, length: number): Part {
  return { first: Math.max(0, length - count), last: length - 1 }
}

/** Whether the rest that the client has is of this response: by a strong tag, or the exact date. RFC 9110 §13.1.5. */
function sameAs(request: HeaderFields, response: HeaderFields): boolean {
  const condition = fieldOf(request, 'if-range')
  if (condition === undefined) return true
  const tag = fieldOf(response, 'etag')
  if (condition.startsWith('"')) return condition === tag
  const changed = httpDate(fieldOf(response, 'last-modified'))
  return changed !== undefined && changed === httpDate(condition)
}
