import { createHash, randomFillSync } from 'node:crypto'
import { expectedError } from './options.ts'

// What the stores of all layers share: the format, the bounds and the names of records, and ids.

/** Version of the layout of records and messages. Versions of the library with different formats never share a key. */
export const FORMAT = '1'

/** Longest resource key, in UTF-16 units. */
export const MAX_KEY_LENGTH: number = 1 << 20

/** Flights, or calls of a queue, that may be parked on one record, unless `maxParked` is given. */
export const MAX_PARKED: number = 10_000

/** A larger value, in bytes, is not sent in messages: parked waiters read it from the record. */
export const MESSAGE_LIMIT: number = 64 * 1024

/** Lines of a job's log that are kept: no request needs to have more. */
export const MAX_LOG_LINES = 1_000

/** Shortest and longest lease of a job that is held by a token, ms: its record outlives it. So a gateway bounds those of keys, too. */
export const MIN_HELD_LEASE = 100
export const MAX_HELD_LEASE: number = 30 * 24 * 60 * 60_000

/** Longest trace context that is stored, in characters. */
export const MAX_TRACE_LENGTH = 512

const PLAIN = /^[\w:.,;@/=+~!$%&()*?#|-]{1,128}$/
const PREFIX = /^[\w:.-]{1,64}$/

/** Checks that `prefix` can begin a Redis key without changing its cluster slot. @throws TypeError */
export function checkPrefix(name: string, prefix: unknown): void {
  if (typeof prefix === 'string' && PREFIX.test(prefix)) return
  throw expectedError(name, '1 to 64 of A-Z a-z 0-9 _ : . -', prefix)
}

/** Checks that `key` is a string of 1 to {@link MAX_KEY_LENGTH} units. @throws TypeError */
export function checkKey(key: unknown, name = 'key'): asserts key is string {
  if (typeof key !== 'string') throw expectedError(name, 'a string', key)
  if (key.length === 0 || key.length > MAX_KEY_LENGTH) {
    throw new TypeError(`Expected \`${name}\` to have 1 to ${MAX_KEY_LENGTH} characters, got ${key.length}`)
  }
}

/**
 * The Redis key of the record of a resource. Short plain keys are part of it. All others (long, or with control characters,
 * braces, blanks, non-ASCII characters, lone surrogates) are replaced by their digest. The two forms cannot collide, and
 * neither can two prefixes, which contain no slash. `letter`: the kind of resource, 'k' for those of a locker's users.
 */
export function recordKey(prefix: string, key: string, letter = 'k'): string {
  if (PLAIN.test(key)) return `${prefix}:${FORMAT}:${letter}/${key}`
  return `${prefix}:${FORMAT}:${letter === 'k' ? 'h' : `${letter}h`}/${digestOf(key)}`
}

/** Names that stand in a hash tag unchanged: they cannot end it, or contain a separator of key segments. */
const PLAIN_SEGMENT = /^[\w.,;@=+~!$%&()*#-]{1,64}$/

/** A name as a segment of a key: the name itself if it is plain, else a slash and its digest. */
export function keySegment(name: string): string {
  return PLAIN_SEGMENT.test(name) ? name : `/${digestOf(name)}`
}

/** The SHA-256 of a text in base64url, over UTF-16: in UTF-8 all lone surrogates are the same. */
export function digestOf(text: string): string {
  return createHash('sha256').update(Buffer.from(text, 'utf16le')).digest('base64url')
}

const BYTES = 16
const POOL = BYTES * 256

/** Random bytes for 256 ids: one system call fills it. */
const pool = Buffer.allocUnsafe(POOL)
let used = POOL

/** Length of an id: 128 random bits in base64url. */
export const ID_LENGTH = 22

const ADDRESS = new RegExp(`^[\\w-]{${2 * ID_LENGTH}}$`)

/** Whether a text can be the address of something in a process: the id of its inbox, and a nonce. */
export function isAddress(text: unknown): text is string {
  return typeof text === 'string' && ADDRESS.test(text)
}

/** Returns a new unguessable id of {@link ID_LENGTH} characters of `A-Za-z0-9_-`. */
export function newId(): string {
  if (used === POOL) {
    randomFillSync(pool)
    used = 0
  }
  const id = pool.toString('base64url', used, used + BYTES)
  used += BYTES
  return id
}
