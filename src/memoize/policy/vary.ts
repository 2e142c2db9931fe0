import type { HeaderFields } from '../engine/message.ts'
import { linesOf, listOf, membersOf } from './fields.ts'
import { keyFrom } from './key.ts'

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

/** Whether a response allows the very origin that a request came from: another's would be refused by its browser. */
export function reflectsOrigin(request: HeaderFields, response: HeaderFields): boolean {
  const { origin } = request
  return origin !== undefined && response['access-control-allow-origin'] === origin
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
  if (!CASELESS.has(name)) return value
  const list = membersOf(value)
    .map((member) => withoutBlanks(member).toLowerCase())
    .join(',')
  return name === 'accept-language' ? list.replace(SUBTAG, inUsualCase) : list
}

/** Without the blanks around `;` and `=`. Not by one expression: that would try each of many blanks as the first. */
function withoutBlanks(member: string): string {
  return member
    .split(/([;=])/)
    .map((part) => part.trim())
    .join('')
}

const SUBTAG = /-[a-z]{2}(?![a-z0-9])|-[a-z]{4}(?![a-z0-9])/g

/** As clients write them: `en-US`, `zh-Hant`. RFC 5646 §2.1.1. */
function inUsualCase(subtag: string): string {
  return subtag.length === 3 ? subtag.toUpperCase() : `-${subtag.charAt(1).toUpperCase()}${subtag.slice(2)}`
}

/** Makes the same in a request what is the same in the key of a variant: whoever answers must not see more than that. */
export function normalise(headers: HeaderFields): void {
  for (const name of CASELESS) {
    const value = normalised(name, linesOf(headers, name))
    if (value !== null) headers[name] = value
  }
}
