import { expectedError } from '../kernel/options.ts'

const NAME_LENGTH = 256

/** Checks the name of a queue, channel, topic, object or property. @throws TypeError */
export function checkName(name: string, value: unknown): asserts value is string {
  if (typeof value === 'string' && value !== '' && value.length <= NAME_LENGTH && value.isWellFormed()) return
  throw expectedError(name, `well-formed text of 1 to ${NAME_LENGTH} characters`, value)
}
