// Names of queues, commands, topics and workers, by the rules that gateways, their workers and remote buses have in common.

/** Longest name of a queue, command, topic or worker, in UTF-16 code units. */
export const MAX_NAME = 256

/** Neither control characters nor lone surrogates. */
const PRINTABLE = /^[^\p{Cc}\p{Cs}]+$/u

/** Whether it is a name that can be shown and logged as it is: well-formed, without control characters. */
export function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length <= MAX_NAME && PRINTABLE.test(value)
}
