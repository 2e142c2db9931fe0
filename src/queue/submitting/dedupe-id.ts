import { createHash } from 'node:crypto'
import { shownValue } from '../../kernel/options.ts'
import { digestOf, FORMAT } from '../../kernel/redis/keys.ts'

/** What may stand in a name as it is: nothing that could end a hash tag, or be taken for another part of the name. */
const PLAIN = /^[\w.,;@=+~!$%&()*#-]{1,64}$/

/** The longest name of a queue or a command, in UTF-16 units. */
const MAX_NAME = 256

/** Throws a TypeError unless it is a string of 1 to 256 units. Half a character would not come back from Redis. */
export function checkName(what: string, name: unknown): asserts name is string {
  const fits = typeof name === 'string' && name.length > 0 && name.length <= MAX_NAME
  if (fits && name.isWellFormed()) return
  const length = fits ? 'one with a lone surrogate' : `${String(name).length} characters`
  const got = typeof name === 'string' ? length : `${shownValue(name)} (${typeof name})`
  throw new TypeError(`Expected \`${what}\` to be a string of 1 to ${MAX_NAME} characters, got ${got}`)
}

/** A name as it stands in the names of keys: itself, or its SHA-256 behind a slash, which no plain one has. */
export function inNames(name: string): string {
  return PLAIN.test(name) ? name : `/${digestOf(name)}`
}

/** The keys of a queue. All share a hash tag, and so a slot. */
export class QueueNames {
  /** Begins all of them: nothing of a Locker does, whose names go on with a letter and a slash. */
  readonly base: string
  /** Those that belong to no command: times, delayed, failed, completed, commands, paused. */
  readonly shared: readonly string[]

  constructor(prefix: string, queue: string) {
    this.base = `${prefix}:${FORMAT}:{${inNames(queue)}}`
    this.shared = ['t', 'd', 'x', 'c', 'q', 's'].map((name) => this.base + name)
  }

  /** Those of a command: what waits, idle places, workers, what waits with a priority. */
  command(name: string): string[] {
    return ['w', 'i', 'r', 'z'].map((letter) => `${this.base}${letter}/${name}`)
  }

  job(id: string): string {
    return `${this.base}j/${id}`
  }

  log(id: string): string {
    return `${this.base}l/${id}`
  }
}

/** Characters of the id of a job that is known by what it is: 192 bits in base64url. */
const IDENTITY_LENGTH = 32

/** The id of the job that is meant by a command and a payload, or by a command and a key of the submitter's own. */
export function identity(command: string, kind: 'payload' | 'key', of: string): string {
  const hash = createHash('sha256').update(`${kind} ${command.length} `)
  hash.update(command, 'utf16le')
  hash.update(of, kind === 'key' ? 'utf16le' : 'utf8')
  return hash.digest('base64url').slice(0, IDENTITY_LENGTH)
}

/** Whether a job is known by what it is: others cannot be asked for again. */
export function isIdentity(id: string): boolean {
  return id.length === IDENTITY_LENGTH
}

/** Whether it can be the id of a job. */
export function isJobId(id: unknown): id is string {
  return typeof id === 'string' && /^[\w-]{22}(?:[\w-]{10})?$/.test(id)
}
