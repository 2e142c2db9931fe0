/**
 * Header fields, and the values in them.
 *
 * - Lines, combined values and lists (RFC 9110 §5.3, §5.6.1), tokens (§5.6.2)
 * - End-to-end fields and Connection (RFC 9110 §7.6.1)
 * - Raw headers: flat lists of names and values
 * - Cache-Control (RFC 9111 §5.2) and delta-seconds (§1.2.2)
 */

import { shownValue } from '../../kernel/options.ts'
import type { HeaderFields } from '../engine/message.ts'

/** RFC 9110 §5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** RFC 9110 §5.5. */
const NOT_FIELD_CONTENT = /[^\t\x20-\x7e\x80-\xff]/

/** The lines of a field, in order. `name` may come from a message: inherited properties such as `constructor` are no fields. */
export function linesOf(headers: HeaderFields, name: string): readonly string[] {
  const value = headers[name]
  if (value === undefined || !Object.hasOwn(headers, name)) return []
  return typeof value === 'string' ? [value] : value
}

/** The lines of a field, combined. Undefined when it is absent. RFC 9110 §5.3. */
export function combinedField(headers: HeaderFields, name: string): string | undefined {
  const value = headers[name]
  return typeof value === 'object' ? value.join(', ') : value
}

/** The members of a list, without empty ones. A comma in a quoted string does not separate. RFC 9110 §5.6.1. */
export function parseList(value: string): string[] {
  const members: string[] = []
  let quoted = false
  let start = 0
  for (let at = 0; at < value.length; at++) {
    const char = value[at]
    if (quoted && char === '\\') at++
    else if (char === '"') quoted = !quoted
    else if (char === ',' && !quoted) {
      members.push(value.slice(start, at))
      start = at + 1
    }
  }
  members.push(value.slice(start))
  // An unclosed quote must not hide the members behind it.
  const parts = quoted ? value.split(',') : members
  return parts.map((part) => part.trim()).filter((part) => part !== '')
}

/** The members of a list field, from all its lines. */
export function listField(headers: HeaderFields, name: string): string[] {
  return linesOf(headers, name).flatMap((line) => parseList(line))
}

/** Whether a text is a token, such as the name of a field. RFC 9110 §5.6.2. */
export function isToken(text: string): boolean {
  return TOKEN.test(text)
}

/** Whether a text may be a field value: one line, without control characters. RFC 9110 §5.5. */
export function isFieldValue(text: unknown): text is string {
  return typeof text === 'string' && !NOT_FIELD_CONTENT.test(text)
}

/** The reason phrase of a response, if it can be written. RFC 9112 §4. */
export function reasonPhraseOf({ statusText }: { statusText?: string | undefined }): string | undefined {
  return isFieldValue(statusText) ? statusText : undefined
}

/** Fields that are about a connection: neither stored nor forwarded. RFC 9110 §7.6.1, RFC 9111 §3.1. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** Fields that are about the message. Connection cannot remove them, though it names them. RFC 9110 §7.6.1. */
const NEVER_CONNECTION_OPTIONS: ReadonlySet<string> = new Set([
  'authorization',
  'cache-control',
  'content-encoding',
  'content-length',
  'content-type',
  'cookie',
  'expires',
  'host',
  'pragma',
  'set-cookie',
  'vary',
])

/** Whether Connection names end-to-end fields: the origin would not see them, though the client sent them. */
export function connectionNamesFields(headers: HeaderFields): boolean {
  const { connection } = headers
  // The values of nearly all requests.
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return false
  return connectionOptions(headers).some(
    (name) => name !== 'close' && name !== 'http2-settings' && !HOP_BY_HOP.has(name),
  )
}

/**
 * The fields of a message without its hop-by-hop fields, names in lower case. RFC 9110 §7.6.1.
 * @throws TypeError for a name or a value that could split the message.
 */
export function endToEndFields(given: HeaderFields): HeaderFields {
  const headers = fromRawHeaders(toRawHeaders(given))
  for (const name of connectionOptions(headers)) if (!NEVER_CONNECTION_OPTIONS.has(name)) delete headers[name]
  for (const name in headers) {
    if (HOP_BY_HOP.has(name)) delete headers[name]
    else checkField(name, linesOf(headers, name))
  }
  return headers
}

/** The names in Connection, in lower case. */
function connectionOptions(headers: HeaderFields): string[] {
  return listField(headers, 'connection').map((option) => option.toLowerCase())
}

function checkField(name: string, lines: readonly string[]): void {
  if (!isToken(name))
    throw new TypeError(`Expected a header name to be a token, got ${shownValue(JSON.stringify(name))}`)
  for (const line of lines) {
    if (!isFieldValue(line)) throw new TypeError(`Expected the header \`${name}\` to be text of one line`)
  }
}

/** Removes fields, and returns them. */
export function takeFields(headers: HeaderFields, names: readonly string[]): HeaderFields {
  const taken: HeaderFields = Object.create(null)
  for (const name of names) {
    taken[name] = headers[name]
    delete headers[name]
  }
  return taken
}

/** Fields as a flat list: name, value, name, value. */
export function toRawHeaders(headers: HeaderFields): string[] {
  const fields: string[] = []
  for (const name in headers) for (const line of linesOf(headers, name)) fields.push(name, line)
  return fields
}

/** Fields from a flat list (name, value, name, value), such as `rawHeaders` of node:http. Names become lower case. */
export function fromRawHeaders(raw: readonly string[]): HeaderFields {
  const headers: HeaderFields = Object.create(null)
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = (raw[at] as string).toLowerCase()
    const value = raw[at + 1] as string
    const known = headers[name]
    if (typeof known === 'object') known.push(value)
    else headers[name] = known === undefined ? value : [known, value]
  }
  return headers
}

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

/** Whether all are field names. A token may contain `'`, but no field does: `private='a'` counts as unqualified. */
function areFieldNames(members: readonly string[]): boolean {
  return members.length > 0 && members.every((member) => isToken(member) && !member.includes("'"))
}

function unquote(value: string): string {
  if (value.length < 2 || !value.startsWith('"') || !value.endsWith('"')) return value
  return value.slice(1, -1).replace(/\\(.)/g, '$1')
}

/** The greatest delta-seconds; a larger number counts as this one. RFC 9111 §1.2.2. */
const MAX_DELTA_SECONDS = 2 ** 31

/** A number of whole seconds; undefined when it is invalid. RFC 9111 §1.2.2. */
export function parseDeltaSeconds(value: string | undefined): number | undefined {
  return value !== undefined && /^\d+$/.test(value) ? Math.min(Number(value), MAX_DELTA_SECONDS) : undefined
}
