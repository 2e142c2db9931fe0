import { shownValue } from '../kernel/options.ts'
import { Problem } from './problem.ts'

/** A number of seconds, or a number with a unit. Leaves no room for exponents, signs and hexadecimal digits. */
const FORM = /^(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d)?$/

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** The bounds of a duration, ms. */
export interface DurationBounds {
  min?: number
  max: number
}

/**
 * Reads a duration of a request: seconds, or with a unit, as `30`, `30s`, `500ms`, `1.5h`. Returns ms.
 * @throws Problem 400 if it is none, or not between `min` (0 by default) and `max` ms.
 */
export function parseDuration(name: string, text: string, { min = 0, max }: DurationBounds): number {
  const [, digits, unit = 's'] = FORM.exec(text) ?? []
  const ms = digits === undefined ? Number.NaN : Number(digits) * (UNITS[unit] ?? Number.NaN)
  if (ms >= min && ms <= max) return ms
  throw new Problem(400, 'invalid duration', {
    detail: `Expected \`${name}\` to be seconds, or a number with ms, s, m, h or d, from ${min} ms to ${max} ms, got ${shownValue(text)}`,
  })
}

/** Seconds, as they stand in an answer. */
export function inSeconds(ms: number): number {
  return Math.round(ms) / 1000
}
