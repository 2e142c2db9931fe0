import { shownValue } from '../../kernel/options.ts'
import type { HeaderFields } from '../engine/message.ts'

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

/** Whether Connection names end-to-end fields: the origin would not see them, though the client sent them. */
export function connectionNamesFields(headers: HeaderFields): boolean {
  const { connection } = headers
  // The values of nearly all requests.
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return false
  const names = listField(headers, 'connection').map((member) => member.toLowerCase())
  return names.some((name) => name !== 'close' && name !== 'http2-settings' && !HOP_BY_HOP.has(name))
}

/** Whether a text may be a field value: one line, without control characters. RFC 9110 §5.5. */
export function isFieldValue(text: unknown): text is string {
  return typeof text === 'string' && !NOT_FIELD_CONTENT.test(text)
}

/** The reason phrase of a response, if it can be written. RFC 9112 §4. */
export function reasonPhraseOf({ statusText }: { statusText?: string | undefined }): string | undefined {
  return isFieldValue(statusText) ? statusText : undefined
}

/** Whether a text is a token, such as the name of a field. RFC 9110 §5.6.2. */
export function isToken(text: string): boolean {
  return TOKEN.test(text)
}

/**
 * The fields of a message without its hop-by-hop fields, names in lower case. RFC 9110 §7.6.1.
 * @throws TypeError for a name or a value that could split the message.
 */
export function endToEndFields(given: HeaderFields): HeaderFields {
  const headers = fromRawHeaders(toRawHeaders(given))
  for (const member of listField(headers, 'connection')) {
    const name = member.toLowerCase()
    if (!NEVER_CONNECTION_OPTIONS.has(name)) delete headers[name]
  }
  for (const name in headers) {
    if (HOP_BY_HOP.has(name)) delete headers[name]
    else checkField(name, linesOf(headers, name))
  }
  return headers
}

function checkField(name: string, lines: readonly string[]): void {
  if (!isToken(name))
    throw new TypeError(`Expected a header name to be a token, got ${shownValue(JSON.stringify(name))}`)
  for (const line of lines) {
    if (!isFieldValue(line)) throw new TypeError(`Expected the header \`${name}\` to be text of one line`)
  }
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
