import type { HeaderFields } from '../engine/message.ts'
import { isToken, linesOf, membersOf } from './fields.ts'

/** Seconds above which a lifetime is as good as for ever. RFC 9111 §1.2.2. */
const LONGEST = 2 ** 31

/**
 * A directive, wherever it stands, whatever a sloppy origin puts between two of them: nothing that forbids may be missed.
 * With an end it is well-formed.
 */
const DIRECTIVE =
  /(?<name>[!#$%&'*+.^_`|~\w-]+)(?:(?<equals>\s*=\s*)(?<value>"(?:[^"\\]|\\.)*"|[^\s,;"]*))?(?:(?<end>\s*(?:[,;]|$))|)/g

/** In place of an argument that cannot be understood: neither a number nor a name. */
const BROKEN = '?'

/** The directives of a Cache-Control field, by lower-case name. */
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
    values.push(value === undefined ? undefined : unquoted(value))
    if (equals !== '=' || end === undefined) values.push(BROKEN)
    this.#values.set(known, values)
  }

  /** Whether there is any directive. */
  get empty(): boolean {
    return this.#values.size === 0
  }

  has(name: string): boolean {
    return this.#values.has(name)
  }

  /** Whether it is about the whole message: without an argument, or with one that names no fields. */
  bare(name: string): boolean {
    return this.#values.get(name)?.some((value) => !namesFields(membersOf(value ?? ''))) ?? false
  }

  /** Whether it stands there without any argument. */
  valueless(name: string): boolean {
    return this.#values.get(name)?.every((value) => value === undefined || value.trim() === '') ?? false
  }

  /** Field names that the directive is about, in lower case. */
  names(name: string): string[] {
    const values = this.#values.get(name) ?? []
    return values.flatMap((value) => membersOf((value ?? '').toLowerCase()))
  }

  /**
   * Seconds. Undefined when the directive is absent. What is no number counts as 0, and of several values the smallest
   * does: information that cannot be relied upon must not make anything fresh. RFC 9111 §4.2.1.
   */
  seconds(name: string): number | undefined {
    const values = this.#values.get(name)
    return values?.map((value) => secondsOf(value) ?? 0).reduce((least, value) => Math.min(least, value))
  }
}

/** A number of whole seconds, or undefined when it is none. */
export function secondsOf(value: string | undefined): number | undefined {
  return value !== undefined && /^\d+$/.test(value) ? Math.min(Number(value), LONGEST) : undefined
}

/** A quote may stand in a token, but nobody calls a field so: whoever writes `private='a'` means `a`, or all of it. */
function namesFields(members: readonly string[]): boolean {
  return members.length > 0 && members.every((member) => isToken(member) && !member.includes("'"))
}

function unquoted(value: string): string {
  if (value.length < 2 || !value.startsWith('"') || !value.endsWith('"')) return value
  return value.slice(1, -1).replace(/\\(.)/g, '$1')
}
