import type { HeaderFields } from '../engine/message.ts'
import { isToken, linesOf, parseList } from './fields.ts'

/** The greatest delta-seconds; a larger number counts as this one. RFC 9111 §1.2.2. */
const MAX_DELTA_SECONDS = 2 ** 31

/**
 * A directive, whatever stands between it and the previous one: a malformed field must not hide a directive that restricts.
 * `end` matches only after a well-formed directive.
 */
const DIRECTIVE =
  /(?<name>[!#$%&'*+.^_`|~\w-]+)(?:(?<equals>\s*=\s*)(?<value>"(?:[^"\\]|\\.)*"|[^\s,;"]*))?(?:(?<end>\s*(?:[,;]|$))|)/g

/** Stands for a malformed argument: neither a number nor a field name. */
const MALFORMED = '?'

/** The directives of a Cache-Control field. Names are in lower case. RFC 9111 §5.2. */
export class CacheControl {
  readonly #values = new Map<string, (string | undefined)[]>()

  constructor(lines: readonly string[]) {
    for (const line of lines) for (const { groups = {} } of line.matchAll(DIRECTIVE)) this.#add(groups)
  }

  static of(headers: HeaderFields): CacheControl {
    return new CacheControl(linesOf(headers, 'cache-control'))
  }

  #add({ name = '', equals = '=', value, end }: Record<string, string | undefined>): void {
    const known = name.toLowerCase()
    const values = this.#values.get(known) ?? []
    values.push(value === undefined ? undefined : unquote(value))
    if (equals !== '=' || end === undefined) values.push(MALFORMED)
    this.#values.set(known, values)
  }

  /** Whether the field has no directive. */
  get isEmpty(): boolean {
    return this.#values.size === 0
  }

  has(name: string): boolean {
    return this.#values.has(name)
  }

  /** Whether the unqualified form is present, which is about the whole message; its qualified form names fields. */
  hasUnqualified(name: string): boolean {
    return this.#values.get(name)?.some((value) => !areFieldNames(parseList(value ?? ''))) ?? false
  }

  /** Whether the directive is present, and never with an argument. */
  hasNoArgument(name: string): boolean {
    return this.#values.get(name)?.every((value) => value === undefined || value.trim() === '') ?? false
  }

  /** The field names of the qualified form, in lower case. */
  fieldNames(name: string): string[] {
    const values = this.#values.get(name) ?? []
    return values.flatMap((value) => parseList((value ?? '').toLowerCase()))
  }

  /**
   * The argument in seconds; undefined when the directive is absent. An invalid number counts as 0, and the smallest of
   * several values counts: unreliable information must not make a response fresh. RFC 9111 §4.2.1.
   */
  seconds(name: string): number | undefined {
    const values = this.#values.get(name)
    return values
      ?.map((value) => parseDeltaSeconds(value) ?? 0)
      .reduce((least, value) => Math.min(least, value))
  }
}

/** A number of whole seconds; undefined when it is invalid. RFC 9111 §1.2.2. */
export function parseDeltaSeconds(value: string | undefined): number | undefined {
  return value !== undefined && /^\d+$/.test(value) ? Math.min(Number(value), MAX_DELTA_SECONDS) : undefined
}

/** Whether all are field names. A token may contain `'`, but no field does: `private='a'` counts as unqualified. */
function areFieldNames(members: readonly string[]): boolean {
  return members.length > 0 && members.every((member) => isToken(member) && !member.includes("'"))
}

function unquote(value: string): string {
  if (value.length < 2 || !value.startsWith('"') || !value.endsWith('"')) return value
  return value.slice(1, -1).replace(/\\(.)/g, '$1')
}
