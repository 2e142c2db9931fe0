import { isWellFormedName, MAX_NAME } from '../kernel/names.ts'
import { expectedError } from '../kernel/options.ts'

/** Checks the name of a queue, channel, topic, object or property. @throws TypeError */
export function checkName(name: string, value: unknown): asserts value is string {
  // The queues of channels have names that begin with NUL.
  if (isWellFormedName(value) && !value.startsWith('\0')) return
  throw expectedError(name, `well-formed text of 1 to ${MAX_NAME} characters, the first not NUL`, value)
}
