import { linesOf, listOf, membersOf } from './fields.ts'
import { keyFrom } from './key.ts'
import type { HeaderFields } from './message.ts'

/** Lists of names and weights, in which neither case nor blanks mean anything. The order may, to some. */
const CASELESS: ReadonlySet<string> = new Set(['accept-charset', 'accept-encoding', 'accept-language'])

/** Which responses a resource has: one per combination of these request fields. */
export interface VaryIndex {
  /** Lower case, sorted. */
  readonly names: readonly string[]
  /** Random: variants of an index that was invalidated can never be found again. */
  readonly id: string
}

/** The request fields that a response depends on, beside `always`: lower case, sorted, each once. */
export function varyNames(headers: HeaderFields, always: readonly string[] = []): string[] {
  const names = listOf(headers, 'vary').map((name) => name.toLowerCase())
  return [...new Set([...names, ...always])].sort()
}

/** The key of the variant that a request asks for. Unambiguous, whatever the fields contain. */
export function variantKey(primary: string, index: VaryIndex, headers: HeaderFields): string {
  const values = index.names.map((name) => normalised(name, linesOf(headers, name)))
  return keyFrom([primary, index.id, ...values])
}

/**
 * Lines of one field as one value; null when it is absent, which is not the same as empty. Only what is known to mean the
 * same is made the same. RFC 9111 §4.1.
 */
function normalised(name: string, lines: readonly string[]): string | null {
  if (lines.length === 0) return null
  const value = lines.map((line) => line.trim()).join(', ')
  return CASELESS.has(name) ? membersOf(value).join(',').replace(/\s+/g, '').toLowerCase() : value
}
