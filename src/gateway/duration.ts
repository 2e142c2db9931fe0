/** A number of seconds, or a number with a unit. Leaves no room for exponents, signs and hexadecimal digits. */
const FORM = /^(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d)?$/

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** The bounds of a duration, ms. */
export interface DurationBounds {
  min?: number
  max: number
}

/**
 * Reads a duration of a request: seconds, or with a unit, as `30`, `30s`, `500ms`, `1.5h`. Returns ms; undefined if it is none,
 * or not between `min` (0 by default) and `max` ms.
 */
export function parseDuration(text: string, { min = 0, max }: DurationBounds): number | undefined {
  const [, digits, unit = 's'] = FORM.exec(text) ?? []
  const ms = digits === undefined ? Number.NaN : Number(digits) * (UNITS[unit] ?? Number.NaN)
  return ms >= min && ms <= max ? ms : undefined
}

/** Seconds, as they stand in an answer. */
export function inSeconds(ms: number): number {
  return Math.round(ms) / 1000
}
