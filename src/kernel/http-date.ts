// Times in header fields of HTTP.

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']

const IMF_FIXDATE = /^[a-z]{3}, (?<day>\d\d) (?<month>[a-z]{3}) (?<year>\d{4}) (?<time>\d\d:\d\d:\d\d) gmt$/i

const RFC850 = /^[a-z]{6,9}, (?<day>\d\d)-(?<month>[a-z]{3})-(?<year>\d\d) (?<time>\d\d:\d\d:\d\d) gmt$/i

const ASCTIME = /^[a-z]{3} (?<month>[a-z]{3}) (?<day>[ \d]\d) (?<time>\d\d:\d\d:\d\d) (?<year>\d{4})$/i

/**
 * An HTTP date in any of its three forms as ms since 1970; undefined when it is invalid. RFC 9110 §5.6.7. `Date.parse` is
 * not strict enough: it accepts `0`.
 */
export function parseHttpDate(value: string | undefined, now: number = Date.now()): number | undefined {
  const { day, month, year, time } =
    (value === undefined ? undefined : (IMF_FIXDATE.exec(value) ?? RFC850.exec(value) ?? ASCTIME.exec(value)))
      ?.groups ?? {}
  if (!day || !month || !year || !time) return undefined
  const index = MONTHS.indexOf(month.toLowerCase())
  const [hours = 0, minutes = 0, seconds = 0] = time.split(':').map(Number)
  if (index < 0 || Number(day) < 1 || Number(day) > 31 || hours > 23 || minutes > 59 || seconds > 60)
    return undefined
  return Date.UTC(fullYear(year, now), index, Number(day), hours, minutes, seconds)
}

/** A year of two digits that appears to be more than 50 years ahead is in the past. RFC 9110 §5.6.7. */
function fullYear(year: string, now: number): number {
  if (year.length === 4) return Number(year)
  const current = new Date(now).getUTCFullYear()
  const candidate = current - (current % 100) + Number(year)
  return candidate > current + 50 ? candidate - 100 : candidate
}

/**
 * The pause that a field Retry-After asks for, ms: seconds, or until a date; at most `max`. 0 if it asks for none, or is
 * malformed. RFC 9110 §10.2.3.
 */
export function parseRetryAfter(value: string | undefined, max: number, now: number = Date.now()): number {
  const seconds = value !== undefined && /^\d{1,10}$/.test(value) ? Number(value) : undefined
  const ms = seconds === undefined ? (parseHttpDate(value, now) ?? now) - now : seconds * 1_000
  return Math.min(Math.max(ms, 0), max)
}
