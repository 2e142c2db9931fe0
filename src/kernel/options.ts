import { masked, maskedValue } from '../secrets.ts'

/** A name or key as a message may show it: short, and without the credentials of a URL. */
export function shown(name: string): string {
  return `\`${masked(name).slice(0, 80)}\``
}

/** What came in the place of something else: short, and without what may be credentials. */
export function shownValue(value: unknown): string {
  let text: string
  try {
    text = String(value)
  } catch {
    text = Object.prototype.toString.call(value)
  }
  return `\`${maskedValue(text).slice(0, 80)}\``
}

/** What an argument should have been, and what came: the wording of every validation message. */
export function expectedError(name: string, what: string, got: unknown): TypeError {
  return new TypeError(`Expected \`${name}\` to be ${what}, got ${shownValue(got)} (${typeof got})`)
}

/** Checks a duration in ms, from `min` up; `infinite: true` allows Infinity. Returns it. */
export function checkDuration(
  name: string,
  value: unknown,
  { min = 0, infinite = false }: { min?: number; infinite?: boolean } = {},
): number {
  const max = infinite ? Number.POSITIVE_INFINITY : Number.MAX_SAFE_INTEGER
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw expectedError(
    name,
    `a number of milliseconds from ${min} and up${infinite ? ', or Infinity' : ''}`,
    value,
  )
}

/** Checks a duration in ms, which may be Infinity. */
export function checkTimeout(name: string, value: unknown): void {
  checkDuration(name, value, { infinite: true })
}

/** Checks the length of a lease, ms: no shorter one can be renewed in time. Returns it as scripts read it, whole. */
export function checkLease(lease: unknown): number {
  return Math.ceil(checkDuration('lease', lease, { min: 100 }))
}

/** Checks a number from `min` to `max`. Returns it. */
export function checkNumber(name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw expectedError(
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
  throw expectedError(name, `a whole number from ${min} and up, or Infinity`, value)
}

/** Checks a whole number from 1 to `max`. Returns it. */
export function checkWhole(name: string, value: unknown, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value
  throw expectedError(name, `a whole number from 1 to ${max}`, value)
}

/** Checks that `value` is one of `choices`. Returns it. */
export function checkChoice<T>(name: string, value: unknown, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value)
  if (found !== undefined) return found
  throw expectedError(name, `one of ${choices.map((choice) => JSON.stringify(choice)).join(', ')}`, value)
}

/** Checks that `value` is true or false. */
export function checkFlag(name: string, value: unknown): void {
  checkChoice(name, value, [true, false])
}

/** Checks that `value` is made by a class. `what`: its name in a message. */
export function checkInstance(name: string, value: unknown, made: new () => unknown, what: string): void {
  if (!(value instanceof made)) throw expectedError(name, what, value)
}

/** Checks that `value` is a function. */
export function checkFunction(name: string, value: unknown): void {
  if (typeof value !== 'function') throw expectedError(name, 'a function', value)
}

/** Checks that `value` is an AbortSignal or undefined; by its shape, since that of another realm is none of ours. */
export function checkSignal(name: string, value: unknown): void {
  if (value === undefined) return
  const { aborted, addEventListener, removeEventListener } = (value ?? {}) as Partial<AbortSignal>
  const listens = typeof addEventListener === 'function' && typeof removeEventListener === 'function'
  if (typeof aborted !== 'boolean' || !listens) throw expectedError(name, 'an AbortSignal', value)
}

/** Checks that every field of an options object is one that is known: a misspelt option must not be silently ignored. */
export function checkFields(name: string, value: unknown, known: readonly string[]): void {
  if (typeof value !== 'object' || value === null) throw expectedError(name, 'an object', value)
  for (const field of Object.keys(value)) {
    if (known.includes(field)) continue
    const near = nearest(field, known)
    const hint = near === undefined ? '' : `; did you mean \`${near}\`?`
    throw new TypeError(
      `Unknown option ${shownValue(field)} in \`${name}\`; known are ${known.join(', ')}${hint}`,
    )
  }
}

/** Throws TypeError unless a value, which is not undefined, is what the option of this name should be. */
export type Check = (name: string, value: unknown) => unknown

/** For an option that is checked elsewhere. */
export const unchecked: Check = () => {}

/** How each option of a type is checked: whatever has no check is no option. */
export type Checks<Options> = Readonly<Record<keyof Options, Check>>

/** A table of checks without a prototype: `toString` and the like are no options. */
export function checksOf<Options>(checks: Checks<Options>): Checks<Options> {
  return Object.setPrototypeOf(checks, null)
}

/** An options type with every option present. */
export type Complete<Options> = { [Name in keyof Options]-?: Exclude<Options[Name], undefined> }

/** Every option of a type: its check, and its default where it has a plain one. */
export type OptionTable<Options, Defaults> = {
  readonly [Name in keyof Options]-?: Name extends keyof Defaults ? [Check, Defaults[Name]] : [Check]
}

/** The checks and the defaults of a table. */
export function columnsOf<Options, Defaults>(
  table: OptionTable<Options, Defaults>,
): { checks: Checks<Options>; defaults: Defaults } {
  const rows = Object.entries<[Check, unknown?]>(table)
  const defaults = rows.filter((row) => row[1].length === 2).map(([name, [, value]]) => [name, value])
  return {
    checks: checksOf<Options>(
      Object.fromEntries(rows.map(([name, [check]]) => [name, check])) as Checks<Options>,
    ),
    defaults: Object.fromEntries(defaults),
  }
}

/** Some fields of a table. */
export function pick<T, Name extends keyof T>(table: T, ...names: Name[]): Pick<T, Name> {
  return Object.fromEntries(names.map((name) => [name, table[name]])) as Pick<T, Name>
}

/** Checks every option that is given. Throws TypeError. */
export function checkOptions<Options extends object>(given: Options, checks: Checks<Options>): void {
  if (typeof given !== 'object' || given === null) return checkFields('options', given, [])
  for (const name in given) if (!checks[name]) checkFields('options', given, Object.keys(checks))
  // By the table: getters of a class are read as well, and not enumerated.
  for (const name in checks) {
    const value = given[name]
    if (value !== undefined) checks[name](name, value)
  }
}

/** The options that have a default, with those that are given in their places. */
export function withDefaults<Defaults extends object>(
  given: { readonly [Name in keyof Defaults]?: Defaults[Name] | undefined },
  defaults: Defaults,
): Defaults {
  const options = { ...defaults }
  for (const name in defaults) {
    const value = given[name]
    if (value !== undefined) options[name] = value
  }
  return options
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
