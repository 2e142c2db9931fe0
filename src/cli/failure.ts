import { masked } from '../secrets.ts'

/** Exit codes: of a command that has failed, and of one that was called wrongly. */
export const FAILED = 1
export const WRONG_USAGE = 2

/** Thrown when the command line, the environment, the configuration or the installation is wrong. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/**
 * Writes an error to stderr as one line without credentials, with its stack if DEBUG is set. Returns the exit code.
 */
export function report(error: unknown): number {
  const { message, stack } = error instanceof Error ? error : new Error(String(error))
  const lines = message.replace(/^error: /, '').split('\n')
  const line = lines.map((each) => each.trim()).join(' ')
  process.stderr.write(`soloflight: ${masked(line)}\n`)
  if (process.env['DEBUG'] && stack !== undefined) process.stderr.write(`${masked(stack)}\n`)
  return error instanceof UsageError ? WRONG_USAGE : FAILED
}
