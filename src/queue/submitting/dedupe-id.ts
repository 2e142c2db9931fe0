import { createHash } from 'node:crypto'
import { digestOf, FORMAT } from '../../kernel/keys.ts'
import { shownValue } from '../../kernel/options.ts'

/** Names that are used in keys unchanged: they cannot end a hash tag or contain a separator of key segments. */
const PLAIN = /^[\w.,;@=+~!$%&()*#-]{1,64}$/

/** Longest name of a queue or a command, in UTF-16 code units. */
const MAX_NAME = 256

/** Throws TypeError unless `name` is a well-formed string of 1 to 256 UTF-16 code units. Redis would change a lone surrogate. */
export function checkName(what: string, name: unknown): asserts name is string {
  const fits = typeof name === 'string' && name.length > 0 && name.length <= MAX_NAME
  if (fits && name.isWellFormed()) return
  const length = fits ? 'one with a lone surrogate' : `${String(name).length} characters`
  const got = typeof name === 'string' ? length : `${shownValue(name)} (${typeof name})`
  throw new TypeError(`Expected \`${what}\` to be a string of 1 to ${MAX_NAME} characters, got ${got}`)
}

/** The name as a segment of a key: the name itself if it is plain, else a slash and its SHA-256. */
export function keySegment(name: string): string {
  return PLAIN.test(name) ? name : `/${digestOf(name)}`
}

/** The Redis keys of a queue. All have the same hash tag, so they are in one slot. */
export class QueueKeys {
  /** Prefix of all keys. No key of a Locker has it: in those, a letter and a slash follow the format number. */
  readonly base: string
  readonly deadlines: string
  readonly commands: string
  readonly paused: string
  /** Keys that belong to no command, as the scripts take them: deadlines, delayed, failed, completed, commands, paused. */
  readonly shared: readonly string[]

  constructor(prefix: string, queue: string) {
    this.base = `${prefix}:${FORMAT}:{${keySegment(queue)}}`
    this.deadlines = `${this.base}t`
    this.commands = `${this.base}q`
    this.paused = `${this.base}s`
    this.shared = [
      this.deadlines,
      `${this.base}d`,
      `${this.base}x`,
      `${this.base}c`,
      this.commands,
      this.paused,
    ]
  }

  /** Keys of a command: ready jobs, idle slots, workers, ready jobs with a priority. */
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

/** Length of a dedupe id: 192 bits in base64url. */
const DEDUPE_ID_LENGTH = 32

/** The id of a job that is deduplicated: a hash of its command, and of its payload or the key of the submitter. */
export function dedupeId(command: string, kind: 'payload' | 'key', of: string): string {
  const hash = createHash('sha256').update(`${kind} ${command.length} `)
  hash.update(command, 'utf16le')
  hash.update(of, kind === 'key' ? 'utf16le' : 'utf8')
  return hash.digest('base64url').slice(0, DEDUPE_ID_LENGTH)
}

/** Whether a job is deduplicated. No later submission can have the id of any other job. */
export function isDedupeId(id: string): boolean {
  return id.length === DEDUPE_ID_LENGTH
}

/** Whether a value has the format of a job id. */
export function isJobId(id: unknown): id is string {
  return typeof id === 'string' && /^[\w-]{22}(?:[\w-]{10})?$/.test(id)
}
