import type { HeaderFields } from '../engine/message.ts'
import { parseDeltaSeconds } from './cache-control.ts'
import { linesOf } from './fields.ts'
import { parseHttpDate } from './http-date.ts'

/** When a response was received. RFC 9111 §4.2.3. */
export interface ResponseTiming {
  /** By the wall clock, ms since 1970. */
  responseTime: number
  /** Time between request and response, by the monotonic clock, ms. */
  responseDelay: number
}

/** Date has whole seconds: an apparent age up to this may be 0, ms. */
const DATE_RESOLUTION = 1_000

/** The age of a response whose Age cannot be relied upon: it is not fresh, ms. */
export const UNKNOWN_AGE: number = 2 ** 31 * 1_000

/** The value of Age, ms. Undefined when the response has none. */
function ageField(headers: HeaderFields): number | undefined {
  const lines = linesOf(headers, 'age')
  if (lines.length === 0) return undefined
  // The first member of a list counts (RFC 9111 §5.1). Several lines, a repeated member or an invalid number make the age
  // unknown. The RFC would ignore an invalid Age; http-cache-tests requires that the response is not fresh.
  const members = (lines[0] ?? '').split(',').map((member) => member.trim())
  const isClear = lines.length === 1 && new Set(members).size === members.length
  const seconds = isClear ? parseDeltaSeconds(members[0]) : undefined
  return seconds === undefined ? UNKNOWN_AGE : seconds * 1_000
}

/** The age of a response when it was received, ms: `corrected_initial_age`. RFC 9111 §4.2.3. */
export function initialAge(headers: HeaderFields, timing: ResponseTiming): number {
  const date = parseHttpDate(linesOf(headers, 'date')[0])
  const apparent = date === undefined ? 0 : timing.responseTime - date
  return Math.max(apparent <= DATE_RESOLUTION ? 0 : apparent, (ageField(headers) ?? 0) + timing.responseDelay)
}
