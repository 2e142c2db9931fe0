// Numbers, times and names as texts. All are English, as the rest of the page is.

const WHOLE = new Intl.NumberFormat('en')
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

export function count(value: number): string {
  return value < 100_000_000 ? WHOLE.format(value) : SHORT.format(value)
}

export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`
}

/** Per second. */
export function rate(value: number): string {
  if (value === 0) return '0/s'
  return `${value < 10 ? value.toFixed(1) : count(Math.round(value))}/s`
}

const UNITS: readonly (readonly [seconds: number, name: string])[] = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
]

/** A time in seconds: the two largest units that it has. */
export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.floor(seconds)} s`
  const found = UNITS.findIndex(([size]) => seconds >= size)
  const [size, name] = UNITS[found] ?? [60, 'min']
  const [lower, lowerName] = UNITS[found + 1] ?? [1, 's']
  const rest = Math.floor((seconds % size) / lower)
  return `${count(Math.floor(seconds / size))} ${name}${rest > 0 ? ` ${rest} ${lowerName}` : ''}`
}

/** A time of day, as 12:03:04. `at`: ms since 1970. */
export function timeOfDay(at: number): string {
  return new Date(at).toLocaleTimeString('en-GB')
}

/** A time, with its day unless that is today. `at`: ms since 1970. */
export function timeAt(at: number): string {
  const day = new Date(at).toDateString()
  return day === new Date().toDateString()
    ? timeOfDay(at)
    : `${new Date(at).toISOString().slice(0, 10)} ${timeOfDay(at)}`
}

/** A text that is cut where it would be too long to be shown. */
export function cut(text: string, longest: number): string {
  return text.length <= longest ? text : `${text.slice(0, longest)}…`
}

/** A value as one line of JSON. */
export function inline(value: unknown, longest = 200): string {
  if (value === undefined) return ''
  return cut(JSON.stringify(value), longest)
}
