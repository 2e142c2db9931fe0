import { digestOf, FORMAT } from '../../../kernel/keys.ts'

/** Names that are used in keys unchanged: they cannot end a hash tag or contain a separator of key segments. */
const PLAIN = /^[\w.,;@=+~!$%&()*#-]{1,64}$/

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
