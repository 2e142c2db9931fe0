import type { HeaderFields } from '../engine/message.ts'
import { linesOf, listField, parseList } from './fields.ts'
import { encodeKey } from './key.ts'

/** Lists of names and weights, in which case and whitespace have no meaning. The order may have one. */
const CASE_INSENSITIVE_LISTS: ReadonlySet<string> = new Set([
  'accept-charset',
  'accept-encoding',
  'accept-language',
])

/** The request fields that select the variant of a resource. RFC 9111 §4.1. */
export interface VaryIndex {
  /** Lower case, sorted. */
  readonly names: readonly string[]
  /** Random, and part of the variants' keys: the variants of an invalidated index cannot be found again. */
  readonly id: string
}

/** The field names in Vary, and those of `always`: lower case, sorted, without duplicates. */
export function varyNames(headers: HeaderFields, always: readonly string[] = []): string[] {
  const names = listField(headers, 'vary').map((name) => name.toLowerCase())
  return [...new Set([...names, ...always])].sort()
}

/** Whether a response allows exactly the Origin of its request: it is useless to other origins, so it varies by Origin. */
export function reflectsOrigin(request: HeaderFields, response: HeaderFields): boolean {
  const { origin } = request
  return origin !== undefined && response['access-control-allow-origin'] === origin
}

/** The key of the variant that a request selects: unambiguous, whatever the fields contain. */
export function variantKey(primary: string, index: VaryIndex, headers: HeaderFields): string {
  const values = index.names.map((name) => normalizedValue(name, linesOf(headers, name)))
  return encodeKey([primary, index.id, ...values])
}

/**
 * The lines of a field as one value; null when it is absent, which differs from empty. Only differences that are known to
 * have no meaning are removed. RFC 9111 §4.1.
 */
function normalizedValue(name: string, lines: readonly string[]): string | null {
  if (lines.length === 0) return null
  const value = lines.map((line) => line.trim()).join(', ')
  if (!CASE_INSENSITIVE_LISTS.has(name)) return value
  const list = parseList(value)
    .map((member) => withoutWhitespace(member).toLowerCase())
    .join(',')
  return name === 'accept-language' ? list.replace(LANGUAGE_SUBTAG, conventionalCase) : list
}

/** Removes whitespace around `;` and `=`. A regular expression for it would take quadratic time. */
function withoutWhitespace(member: string): string {
  return member
    .split(/([;=])/)
    .map((part) => part.trim())
    .join('')
}

const LANGUAGE_SUBTAG = /-[a-z]{2}(?![a-z0-9])|-[a-z]{4}(?![a-z0-9])/g

/** The conventional case of a subtag: `en-US`, `zh-Hant`. RFC 5646 §2.1.1. */
function conventionalCase(subtag: string): string {
  return subtag.length === 3 ? subtag.toUpperCase() : `-${subtag.charAt(1).toUpperCase()}${subtag.slice(2)}`
}

/** Normalizes the fields of a request as the key of a variant does: the origin must not see more than the key covers. */
export function normalizeFields(headers: HeaderFields): void {
  for (const name of CASE_INSENSITIVE_LISTS) {
    const value = normalizedValue(name, linesOf(headers, name))
    if (value !== null) headers[name] = value
  }
}
