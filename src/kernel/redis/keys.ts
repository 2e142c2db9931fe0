import { createHash } from 'node:crypto'
import { expectedError } from '../options.ts'

/** Version of the layout of records and messages: two versions of the library side by side never touch the same key. */
export const FORMAT = '1'

/** The longest resource key, in UTF-16 units. */
export const MAX_KEY_LENGTH: number = 1 << 20

const PLAIN = /^[\w:.,;@/=+~!$%&()*?#|-]{1,128}$/
const PREFIX = /^[\w:.-]{1,64}$/

/** Throws a TypeError unless `prefix` can begin the name of a Redis key without changing its cluster slot. */
export function checkPrefix(prefix: unknown): string {
  if (typeof prefix === 'string' && PREFIX.test(prefix)) return prefix
  throw expectedError('prefix', '1 to 64 of A-Z a-z 0-9 _ : . -', prefix)
}

/** Throws a TypeError unless `key` is a string of 1 to {@link MAX_KEY_LENGTH} units. */
export function checkKey(key: unknown, name = 'key'): asserts key is string {
  if (typeof key !== 'string') throw expectedError(name, 'a string', key)
  if (key.length === 0 || key.length > MAX_KEY_LENGTH) {
    throw new TypeError(`Expected \`${name}\` to have 1 to ${MAX_KEY_LENGTH} characters, got ${key.length}`)
  }
}

/**
 * The name of the Redis key that holds the record of a resource. Short plain keys stand in it readably; all others
 * (long, control characters, braces, blanks, non-ASCII, lone surrogates) by their SHA-256 over UTF-16, which keeps
 * apart what UTF-8 would merge. The two kinds cannot collide, nor two prefixes: none contains a slash. `letter`: the kind of
 * resource; those of a locker's users are 'k'.
 */
export function recordKey(prefix: string, key: string, letter = 'k'): string {
  if (PLAIN.test(key)) return `${prefix}:${FORMAT}:${letter}/${key}`
  return `${prefix}:${FORMAT}:${letter === 'k' ? 'h' : `${letter}h`}/${digestOf(key)}`
}

/** The SHA-256 of a text over its UTF-16, in base64url: UTF-8 would make lone surrogates the same. */
export function digestOf(text: string): string {
  return createHash('sha256').update(Buffer.from(text, 'utf16le')).digest('base64url')
}
