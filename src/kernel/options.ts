import { masked, maskedValue } from '../secrets.ts'

// Options are checked from one table per options type:
//
//   const LOCKER_OPTIONS: OptionTable<LockerOptions, LockerDefaults> = { ttl: [checkDuration, 60_000], … }
//   checkOptions(given, LOCKER_OPTIONS)
//   const options = withDefaults(given, defaultsOf(LOCKER_OPTIONS))
//
// The type of the table demands a row for every option, and a default in the rows of `LockerDefaults` and in no other.

/** A name or key for a message: short, and without the credentials of a URL. */
export function shown(name: string): string {
  return `\`${masked(name).slice(0, 80)}\``
}

/** An invalid value for a message: short, and without possible credentials. */
export function shownValue(value: unknown): string {
  let text: string
  try {
    text = String(value)
  } catch {
    text = Object.prototype.toString.call(value)
  }
  return `\`${maskedValue(text).slice(0, 80)}\``
}

/** The error for an invalid value. `what`: a description of the valid ones. */
export function expectedError(name: string, what: string, got: unknown): TypeError {
  return new TypeError(`Expected \`${name}\` to be ${what}, got ${shownValue(got)} (${typeof got})`)
}

/** Checks the value of the option `name`, which is not undefined. @throws TypeError */
export type Check = (name: string, value: unknown) => void

function checkOf(what: string, isValid: (value: unknown) => boolean): Check {
  return (name, value) => {
    if (!isValid(value)) throw expectedError(name, what, value)
  }
}

function isNumber(value: unknown, min: number, max: number): value is number {
  return typeof value === 'number' && value >= min && value <= max
}

/** A number of milliseconds from `min`, but not Infinity. */
export function durationFrom(min: number): Check {
  const what = `a number of milliseconds from ${min} and up`
  return checkOf(what, (value) => isNumber(value, min, Number.MAX_SAFE_INTEGER))
}

/** A number of milliseconds from `min`, or Infinity. */
export function timeoutFrom(min: number): Check {
  const what = `a number of milliseconds from ${min} and up, or Infinity`
  return checkOf(what, (value) => isNumber(value, min, Number.POSITIVE_INFINITY))
}

export function numberBetween(min: number, max: number): Check {
  return checkOf(`a number from ${min} to ${max}`, (value) => isNumber(value, min, max))
}

export function integerUpTo(max: number): Check {
  return checkOf(
    `a whole number from 1 to ${max}`,
    (value) => isNumber(value, 1, max) && Number.isInteger(value),
  )
}

export function countFrom(min: number): Check {
  const what = `a whole number from ${min} and up, or Infinity`
  return checkOf(
    what,
    (value) =>
      isNumber(value, min, Number.POSITIVE_INFINITY) &&
      (Number.isInteger(value) || value === Number.POSITIVE_INFINITY),
  )
}

export function oneOf(choices: readonly unknown[]): Check {
  const what = `one of ${choices.map((choice) => JSON.stringify(choice)).join(', ')}`
  return checkOf(what, (value) => choices.includes(value))
}

/** An instance of a class. `what`: its name in a message. */
export function instanceOf(type: new () => unknown, what: string): Check {
  return checkOf(what, (value) => value instanceof type)
}

/** An object whose options are those of a table. */
export function objectOf<Options extends object>(table: OptionTable<Options>): Check {
  return (name, value) => checkOptions(value as Options, table, name)
}

/** `false`, or a value that passes the check. */
export function falseOr(check: Check): Check {
  return (name, value) => {
    if (value !== false) check(name, value)
  }
}

export const checkDuration: Check = durationFrom(0)

export const checkTimeout: Check = timeoutFrom(0)

/** The duration of a lease, ms: a shorter one could not be renewed in time. */
export const checkLease: Check = durationFrom(100)

export const checkFlag: Check = oneOf([true, false])

export const checkFunction: Check = checkOf('a function', (value) => typeof value === 'function')

/** An AbortSignal, by its shape: one of another realm is not an instance of our class. */
export const checkSignal: Check = checkOf('an AbortSignal', (value) => {
  const { aborted, addEventListener, removeEventListener } = (value ?? {}) as Partial<AbortSignal>
  return (
    [typeof aborted, typeof addEventListener, typeof removeEventListener].join() ===
    'boolean,function,function'
  )
})

/** For an option that is checked elsewhere. */
export const unchecked: Check = () => {}

/** In the place of a default: the option must be given. */
export const REQUIRED: unique symbol = Symbol('required')

/** An options type with every option present. */
export type Complete<Options> = { [Name in keyof Options]-?: Exclude<Options[Name], undefined> }

/** For every option of a type its check, and its default if it is one of `Defaults`; without `Defaults`, any or none. */
export type OptionTable<Options, Defaults = unknown> = {
  readonly [Name in keyof Options]-?: undefined extends Options[Name]
    ? Name extends keyof Defaults
      ? readonly [Check, Defaults[Name]]
      : unknown extends Defaults
        ? readonly [Check, unknown?]
        : readonly [Check]
    : readonly [Check, typeof REQUIRED]
}

export function pick<T, Name extends keyof T>(table: T, ...names: Name[]): Pick<T, Name> {
  return Object.fromEntries(names.map((name) => [name, table[name]])) as Pick<T, Name>
}

/** Checks the names of options. An unknown name is refused, with the nearest known one. @throws TypeError */
export function checkNames(path: string, given: object, known: object): void {
  for (const name in given) {
    if (Object.hasOwn(known, name) || !Object.hasOwn(given, name)) continue
    const names = Object.keys(known)
    const near = nearest(name, names)
    const hint = near === undefined ? '' : `; did you mean \`${near}\`?`
    throw new TypeError(
      `Unknown option ${shownValue(name)} in \`${path}\`; known are ${names.join(', ')}${hint}`,
    )
  }
}

/** Checks the names of the options, and every option that is given. `path`: the name of a nested object. @throws TypeError */
export function checkOptions<Options extends object>(
  given: Options,
  table: OptionTable<Options>,
  path?: string,
): void {
  if (typeof given !== 'object' || given === null) throw expectedError(path ?? 'options', 'an object', given)
  checkNames(path ?? 'options', given, table)
  // By the table, because the getters of a class are not enumerable.
  for (const name in table) {
    const value = given[name]
    // Only nested objects have required options. A call does not read the row of every absent option: that cost 75 ns.
    if (value === undefined && (path === undefined || table[name][1] !== REQUIRED)) continue
    table[name][0](path === undefined ? name : `${path}.${name}`, value)
  }
}

export function defaultsOf<Options, Defaults>(table: OptionTable<Options, Defaults>): Defaults {
  const hasDefault = ([, row]: [string, readonly [Check, unknown?]]) =>
    row.length === 2 && row[1] !== REQUIRED
  const rows = Object.entries<readonly [Check, unknown?]>(table).filter(hasDefault)
  return Object.fromEntries(rows.map(([name, [, value]]) => [name, value])) as Defaults
}

/** `defaults`, replaced by the options that are given. */
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

/** The known name that was probably meant. */
function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let least = Math.min(4, Math.ceil(name.length / 3) + 1)
  for (const candidate of known) {
    const edits = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (edits >= least) continue
    least = edits
    best = candidate
  }
  return best
}

/** The Levenshtein distance: the number of characters to insert, delete or replace. */
function editDistance(one: string, other: string): number {
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
