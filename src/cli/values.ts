// What a setting is, and the texts that are its values.

/** One setting. */
export interface Row<Value> {
  /** For the help: what the value is. */
  readonly value: string
  readonly description: string
  /** What a valid value is, in an error. */
  readonly expected: string
  /** Returns undefined if the texts are no valid value. There is one text unless it is a list. */
  readonly parse: (...texts: readonly string[]) => Value | undefined
  /** As it would be given. */
  readonly fallback?: string
  readonly isList?: true
  readonly isSecret?: true
}

/** Any text. */
export const plain = (text: string): string => text

/** The parts of a list in one text. */
export const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '')

/** A whole number up to `most`. */
export function integer(text: string, most: number): number | undefined {
  return /^\d{1,15}$/.test(text) && Number(text) <= most ? Number(text) : undefined
}

const KIBIBYTE = 1024
const UNITS: Readonly<Record<string, number>> = { '': 1, kib: KIBIBYTE, mib: KIBIBYTE ** 2 }

/** Bytes. */
export function size(text: string): number | undefined {
  const [, digits = '', unit = ''] = /^(\d{1,12})(KiB|MiB)?$/i.exec(text) ?? []
  const bytes = Number(digits) * (UNITS[unit.toLowerCase()] ?? 1)
  return bytes > 0 ? bytes : undefined
}

const SECOND = 1000
/** Ms: a day. */
const LONGEST_TIME = 24 * 60 * 60 * SECOND

/** Ms of a time in seconds, or with a unit. */
export function duration(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s)?$/.exec(text) ?? []
  const ms = Number(digits) * (unit === 'ms' ? 1 : SECOND)
  return ms <= LONGEST_TIME ? ms : undefined
}

export function truth(text: string): boolean | undefined {
  return text === 'true' || text === 'false' ? text === 'true' : undefined
}
