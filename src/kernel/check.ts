/** What an argument should have been, and what came: the wording of every validation message. */
function expected(name: string, what: string, got: unknown): TypeError {
  return new TypeError(
    `Expected \`${name}\` to be ${what}, got \`${String(got).slice(0, 80)}\` (${typeof got})`,
  )
}

/** Checks a duration in ms, from `min` up; `infinite: true` allows Infinity. Returns it. */
export function checkDuration(
  name: string,
  value: unknown,
  { min = 0, infinite = false }: { min?: number; infinite?: boolean } = {},
): number {
  const what = `a number of milliseconds from ${min} and up${infinite ? ', or Infinity' : ''}`
  if (typeof value !== 'number' || Number.isNaN(value) || value < min) throw expected(name, what, value)
  if (!infinite && value > Number.MAX_SAFE_INTEGER) throw expected(name, what, value)
  return value
}

/** Checks a number from `min` to `max`. Returns it. */
export function checkNumber(name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw expected(
    name,
    max === Number.POSITIVE_INFINITY ? `a number from ${min} and up` : `a number from ${min} to ${max}`,
    value,
  )
}

/** Checks a whole number from `min` and up, or Infinity. Returns it. */
export function checkCount(name: string, value: unknown, min: number): number {
  if (
    typeof value === 'number' &&
    value >= min &&
    (Number.isInteger(value) || value === Number.POSITIVE_INFINITY)
  )
    return value
  throw expected(name, `a whole number from ${min} and up, or Infinity`, value)
}

/** Checks a whole number from 1 to `max`. Returns it. */
export function checkWhole(name: string, value: unknown, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value
  throw expected(name, `a whole number from 1 to ${max}`, value)
}

/** Checks that `value` is one of `choices`. Returns it. */
export function checkChoice<T>(name: string, value: unknown, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value)
  if (found !== undefined) return found
  throw expected(name, `one of ${choices.map((choice) => JSON.stringify(choice)).join(', ')}`, value)
}

/** Checks that `value` is a function. */
export function checkFunction(name: string, value: unknown): void {
  if (typeof value !== 'function') throw expected(name, 'a function', value)
}

/** Checks that `value` is an AbortSignal or undefined. */
export function checkSignal(name: string, value: unknown): void {
  if (value !== undefined && !(value instanceof AbortSignal)) throw expected(name, 'an AbortSignal', value)
}

/** Checks that every field of an options object is one that is known: a misspelt option must not be silently ignored. */
export function checkFields(name: string, value: unknown, known: readonly string[]): void {
  if (typeof value !== 'object' || value === null) throw expected(name, 'an object', value)
  for (const field of Object.keys(value)) {
    if (!known.includes(field))
      throw new TypeError(`Unknown option \`${field}\` in \`${name}\`; known are ${known.join(', ')}`)
  }
}
