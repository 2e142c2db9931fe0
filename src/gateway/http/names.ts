import { isPrintableName, MAX_NAME } from '../../kernel/names.ts'
import { shownValue } from '../../kernel/options.ts'
import type { RouteContext } from '../env.ts'
import { Problem } from '../problem.ts'

// Names and keys that stand in paths, parameters and headers.

/** Longest key of a lock, and longest key that makes a job unique. */
export const MAX_KEY = 1024

export function isKey(key: string): boolean {
  return key.length > 0 && key.length <= MAX_KEY && key.isWellFormed()
}

/** The name of the queue in the path. @throws Problem 400 if no queue can have it. */
export function queueName(c: RouteContext): string {
  return nameInPath(c, 'queue')
}

/** A name in the path. `what` it names is also how the path calls it. @throws Problem 400 unless it is a name. */
export function nameInPath({ req }: RouteContext, what: string): string {
  const name = req.param(what) ?? ''
  if (isPrintableName(name)) return name
  throw new Problem(400, `invalid ${what} name`, {
    detail: `Expected 1 to ${MAX_NAME} characters without control characters`,
  })
}

/** @throws Problem 400 unless it is a key. */
export function checkedKey(name: string, value: string): string {
  if (isKey(value)) return value
  throw invalidParameter(name, `1 to ${MAX_KEY} characters`, value)
}

/** The answer to a parameter, or to a header, with another value than was expected. */
export function invalidParameter(name: string, expected: string, value: string): Problem {
  return new Problem(400, 'invalid parameter', {
    detail: `Expected \`${name}\` to be ${expected}, got ${shownValue(value)}`,
  })
}
