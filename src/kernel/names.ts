import { expectedError } from './options.ts'

// Names of queues, commands, topics, services and workers. In this process any well-formed name will do: Redis would change a lone
// surrogate. Through a gateway, names stand in paths, headers and logs besides, so they must be printable.

/** Longest name, in UTF-16 code units. */
export const MAX_NAME = 256

/** The command of a job whose client, or worker, of a gateway names none. */
export const DEFAULT_COMMAND = 'job'

/** Neither control characters nor lone surrogates. */
const PRINTABLE = /^[^\p{Cc}\p{Cs}]+$/u

/** Whether it is a name that can be shown and logged as it is: well-formed, without control characters. */
export function isPrintableName(value: unknown): value is string {
  return typeof value === 'string' && value.length <= MAX_NAME && PRINTABLE.test(value)
}

/** Whether it is text of 1 to {@link MAX_NAME} code units without lone surrogates. */
export function isWellFormedName(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_NAME && value.isWellFormed()
}

/** Checks an option or argument called `what`. @throws TypeError unless it is a well-formed name. */
export function checkWellFormedName(what: string, value: unknown): asserts value is string {
  if (!isWellFormedName(value))
    throw expectedError(what, `well-formed text of 1 to ${MAX_NAME} characters`, value)
}
