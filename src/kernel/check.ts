/** A value as a message may show it: short, and without the credentials of a URL. */
export function shown(value: unknown): string {
  let text: string
  try {
    text = String(value)
  } catch {
    text = Object.prototype.toString.call(value)
  }
  return `\`${text.replace(/\/\/[^/?#]*@/g, '//…@').slice(0, 80)}\``
}

/** What an argument should have been, and what came: the wording of every validation message. */
export function expected(name: string, what: string, got: unknown): TypeError {
  return new TypeError(`Expected \`${name}\` to be ${what}, got ${shown(got)} (${typeof got})`)
}

/** Checks a duration in ms, from `min` up; `infinite: true` allows Infinity. Returns it. */
export function checkDuration(
  name: string,
  value: unknown,
  { min = 0, infinite = false }: { min?: number; infinite?: boolean } = {},
): number {
  const max = infinite ? Number.POSITIVE_INFINITY : Number.MAX_SAFE_INTEGER
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw expected(name, `a number of milliseconds from ${min} and up${infinite ? ', or Infinity' : ''}`, value)
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

/** Checks that `value` is an AbortSignal or undefined; by its shape, since that of another realm is none of ours. */
export function checkSignal(name: string, value: unknown): void {
  if (value === undefined) return
  const { aborted, addEventListener } = (value ?? {}) as Partial<AbortSignal>
  if (typeof aborted !== 'boolean' || typeof addEventListener !== 'function')
    throw expected(name, 'an AbortSignal', value)
}

/** Checks that every field of an options object is one that is known: a misspelt option must not be silently ignored. */
export function checkFields(name: string, value: unknown, known: readonly string[]): void {
  if (typeof value !== 'object' || value === null) throw expected(name, 'an object', value)
  for (const field of Object.keys(value)) {
    if (known.includes(field)) continue
    const near = nearest(field, known)
    const hint = near === undefined ? '' : `; did you mean \`${near}\`?`
    throw new TypeError(`Unknown option \`${field}\` in \`${name}\`; known are ${known.join(', ')}${hint}`)
  }
}

/** The name that was probably meant, if one is so near. */
function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let least = Math.min(4, Math.ceil(name.length / 3) + 1)
  for (const candidate of known) {
    const edits = distance(name.toLowerCase(), candidate.toLowerCase())
    if (edits >= least) continue
    least = edits
    best = candidate
  }
  return best
}

/** Levenshtein distance: how many characters must be added, taken away or replaced. */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, at) => at)
  for (const [above, letter] of [...one].entries()) {
    const next = [above + 1]
    for (let at = 1; at <= other.length; at++) {
      const replaced = (row[at - 1] ?? 0) + (other[at - 1] === letter ? 0 : 1)
      next.push(Math.min(replaced, (row[at] ?? 0) + 1, (next[at - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[other.length] ?? 0
}
