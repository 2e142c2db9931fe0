import type { HeaderFields } from '../engine/message.ts'
import { secondsOf } from './cache-control.ts'
import { linesOf } from './fields.ts'
import { httpDate } from './http-date.ts'

/** When a response came, by the wall clock, and how long it took to come, by a monotonic one, ms. */
export interface Arrival {
  at: number
  took: number
}

/** What `Date` cannot tell apart, ms. */
const RESOLUTION = 1_000

/** Older than anything can be fresh, ms. */
export const UNKNOWN_AGE: number = 2 ** 31 * 1_000

/** ms. Undefined when the response says nothing. */
function statedAge(headers: HeaderFields): number | undefined {
  const lines = linesOf(headers, 'age')
  if (lines.length === 0) return undefined
  // Of a list the first counts (RFC 9111 §5.1). Ages in several lines, or told twice, come from who knows how many caches,
  // and one that cannot be read may be any: what is so old is not fresh. The RFC would let it be; the public suite does not.
  const members = (lines[0] ?? '').split(',').map((member) => member.trim())
  const clear = lines.length === 1 && new Set(members).size === members.length
  const seconds = clear ? secondsOf(members[0]) : undefined
  return seconds === undefined ? UNKNOWN_AGE : seconds * 1_000
}

/** How old a response was when it came, ms. RFC 9111 §4.2.3, the corrected initial age. */
export function initialAge(headers: HeaderFields, arrival: Arrival): number {
  const date = httpDate(linesOf(headers, 'date')[0])
  const apparent = date === undefined ? 0 : arrival.at - date
  return Math.max(apparent <= RESOLUTION ? 0 : apparent, (statedAge(headers) ?? 0) + arrival.took)
}
