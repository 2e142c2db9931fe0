import { shownValue } from '../../kernel/options.ts'
import { type DurationBounds, parseDuration } from '../duration.ts'
import type { RouteContext } from '../env.ts'
import { Problem } from '../problem.ts'

// What a request says beside its body: the names in its path, and the parameters of its query.

/** Longest name of a queue or command, as in the library. */
const MAX_NAME = 256

/** Longest key that makes a job unique. */
const MAX_KEY = 1024

/** The name of the queue in the path. @throws Problem 400 if no queue can have it. */
export function queueName({ req }: RouteContext): string {
  return checkedName('queue', req.param('queue') ?? '')
}

function checkedName(what: string, name: string): string {
  if (name.length > 0 && name.length <= MAX_NAME && name.isWellFormed() && !hasControl(name)) return name
  throw new Problem(400, `invalid ${what} name`, {
    detail: `Expected 1 to ${MAX_NAME} characters without control characters`,
  })
}

/** Whether a name has a control character: it could not be shown or logged as it is. */
function hasControl(name: string): boolean {
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at)
    if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return true
  }
  return false
}

/** The parameters of a query. Each may stand there once. */
export class Query {
  readonly #values: ReadonlyMap<string, string>

  /** @throws Problem 400 for a parameter that the route does not know, and for one that is repeated. */
  constructor({ req }: RouteContext, known: readonly string[]) {
    const start = req.url.indexOf('?')
    const values = new Map<string, string>()
    if (start >= 0) {
      for (const [name, value] of new URLSearchParams(req.url.slice(start))) {
        const detail = known.includes(name)
          ? `The parameter \`${name}\` is repeated`
          : `Unknown parameter ${shownValue(name)}; known are ${known.join(', ')}`
        if (values.has(name) || !known.includes(name)) throw new Problem(400, 'invalid parameter', { detail })
        values.set(name, value)
      }
    }
    this.#values = values
  }

  has(name: string): boolean {
    return this.#values.has(name)
  }

  text(name: string): string | undefined {
    return this.#values.get(name)
  }

  /** A parameter that is there or not: `?failed`, `?failed=1`, but not `?failed=0`. */
  flag(name: string): boolean {
    const value = this.#values.get(name)
    if (value === undefined || value === '0' || value === 'false') return false
    if (value === '' || value === '1' || value === 'true') return true
    throw invalid(name, '1 or 0', value)
  }

  /** ms. */
  duration(name: string, bounds: DurationBounds): number | undefined {
    const value = this.#values.get(name)
    return value === undefined ? undefined : parseDuration(name, value, bounds)
  }

  /** A whole number. */
  count(name: string, min: number, max: number): number | undefined {
    const value = this.#values.get(name)
    if (value === undefined) return undefined
    const count = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN
    if (count >= min && count <= max) return count
    throw invalid(name, `a whole number from ${min} to ${max}`, value)
  }

  /** One of some words. */
  word<Word extends string>(name: string, words: readonly Word[]): Word | undefined {
    const value = this.#values.get(name)
    if (value === undefined || words.includes(value as Word)) return value as Word | undefined
    throw invalid(name, words.join(' or '), value)
  }

  /** A key of the client's choice. */
  key(name: string): string | undefined {
    const value = this.#values.get(name)
    return value === undefined ? undefined : checkedKey(name, value)
  }

  /** The command of the jobs that the request is about. */
  command(): string {
    return checkedName('command', this.#values.get('command') ?? 'job')
  }
}

/** @throws Problem 400 unless the key is of 1 to 1,024 characters. */
export function checkedKey(name: string, value: string): string {
  if (value.length > 0 && value.length <= MAX_KEY && value.isWellFormed()) return value
  throw invalid(name, `1 to ${MAX_KEY} characters`, `${value.length} characters`)
}

export function invalid(name: string, what: string, value: string): Problem {
  return new Problem(400, 'invalid parameter', {
    detail: `Expected \`${name}\` to be ${what}, got ${shownValue(value)}`,
  })
}
