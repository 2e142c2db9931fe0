import { shownValue } from '../../kernel/options.ts'
import type { HeaderFields } from '../engine/message.ts'

/** Fields of a connection, not of a message: neither stored nor forwarded. RFC 9110 §7.6.1, RFC 9111 §3.1. */
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

/** Fields that are about the message: whoever names them in Connection does not take them away. RFC 9110 §7.6.1. */
const OF_THE_MESSAGE: ReadonlySet<string> = new Set([
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

const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const BROKEN_VALUE = /[^\t\x20-\x7e\x80-\xff]/

/** Every line of a field, in order. A name may come from a message: what every object inherits is no field. */
export function linesOf(headers: HeaderFields, name: string): readonly string[] {
  const value = headers[name]
  if (value === undefined || !Object.hasOwn(headers, name)) return []
  return typeof value === 'string' ? [value] : value
}

/** All lines of a field as one, which for a list means the same. Undefined when it is absent. */
export function fieldOf(headers: HeaderFields, name: string): string | undefined {
  const value = headers[name]
  return typeof value === 'object' ? value.join(', ') : value
}

/** The parts of a list, trimmed, the empty ones left out. A comma in a quoted string does not part. */
export function membersOf(value: string): string[] {
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
  // A quote that nobody closed must not hide what stands behind it.
  const parts = quoted ? value.split(',') : members
  return parts.map((part) => part.trim()).filter((part) => part !== '')
}

/** The members of a list field, of all its lines. */
export function listOf(headers: HeaderFields, name: string): string[] {
  return linesOf(headers, name).flatMap((line) => membersOf(line))
}

/** Whether Connection names fields that a message would have all the same. What answers is not to see them. */
export function namesOthers(headers: HeaderFields): boolean {
  const { connection } = headers
  // As most requests have it.
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return false
  const names = listOf(headers, 'connection').map((member) => member.toLowerCase())
  return names.some((name) => name !== 'close' && name !== 'http2-settings' && !HOP_BY_HOP.has(name))
}

/** Whether it may stand in a message as it is: it then has one line, and no odd bytes. */
export function isOneLine(text: unknown): text is string {
  return typeof text === 'string' && !BROKEN_VALUE.test(text)
}

/** The reason phrase of a response, if it is one that can be written. */
export function reasonOf({ statusText }: { statusText?: string | undefined }): string | undefined {
  return isOneLine(statusText) ? statusText : undefined
}

/** Whether it may be the name of a field. */
export function isToken(text: string): boolean {
  return NAME.test(text)
}

/**
 * The fields of a message without those of its connection, names in lower case. Throws TypeError for a name or a value
 * that would break the message in two.
 */
export function endToEnd(given: HeaderFields): HeaderFields {
  const headers = fromRawHeaders(toRawHeaders(given))
  for (const member of listOf(headers, 'connection')) {
    const name = member.toLowerCase()
    if (!OF_THE_MESSAGE.has(name)) delete headers[name]
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
    if (!isOneLine(line)) throw new TypeError(`Expected the header \`${name}\` to be text of one line`)
  }
}

/** Name, value, name, value. */
export function toRawHeaders(headers: HeaderFields): string[] {
  const fields: string[] = []
  for (const name in headers) for (const line of linesOf(headers, name)) fields.push(name, line)
  return fields
}

/** Name, value, name, value, as they came over the wire, as fields. */
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
