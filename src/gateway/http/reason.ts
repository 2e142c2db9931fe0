import type { RemoteFailure } from '../../errors.ts'
import type { JsonText } from '../../kernel/codec/json-text.ts'

/** Members of a reason that have a place of their own in a failure. */
const PLACED = new Set(['name', 'message', 'code', 'stack', 'cause'])

/**
 * The reason of a failure, as a client gives it, as an error: an object with `message`, and perhaps `name`, `code` and other
 * members, or a text. Any other JSON is the message as it stands.
 */
export function errorOf(reason: JsonText | undefined): Error {
  if (!reason) return new Error('The worker gave no reason')
  const value = reason.value
  if (typeof value === 'string') return new Error(value)
  const given = (typeof value === 'object' && value !== null ? value : {}) as Partial<RemoteFailure>
  if (typeof given.message !== 'string') return new Error(reason.text)
  const error = new Error(given.message)
  const define = (name: string, field: unknown) =>
    Object.defineProperty(error, name, { value: field, enumerable: true, configurable: true, writable: true })
  if (typeof given.name === 'string') define('name', given.name)
  if (typeof given.code === 'string' || typeof given.code === 'number') define('code', given.code)
  for (const [name, field] of Object.entries(given)) if (!PLACED.has(name)) define(name, field)
  return error
}
