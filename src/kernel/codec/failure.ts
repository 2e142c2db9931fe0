import { type Ran, RemoteError, type RemoteFailure } from '../../errors.ts'
import { isSecret, masked } from '../../secrets.ts'
import { callHook } from '../hooks.ts'
import type { AsyncContext } from '../time.ts'
import { kindOf } from './binary.ts'
import { jsonCodec, messageOf } from './codec.ts'

/** Limit for the own fields of an error together, bytes of JSON. */
const MAX_FIELDS = 8 * 1024
/** A field with more bytes of JSON is omitted without a look at its parts. */
const MAX_FIELD_READ = 16 * MAX_FIELDS
/** Longest name and message, in characters. */
const MAX_TEXT = 8 * 1024
/** Longest chain of causes. */
const MAX_CAUSES = 3

/** Fields with a place of their own in a RemoteFailure, and the stack, which contains paths of the machine. */
const OMITTED = new Set(['name', 'message', 'code', 'cause', 'stack'])

/** A text without the credentials of URLs, and cut to {@link MAX_TEXT}. */
function safeText(text: string): string {
  return masked(text.slice(0, 2 * MAX_TEXT)).slice(0, MAX_TEXT)
}

/** A copy of a value without fields that may be secrets, at any depth. The codec must be able to encode it. */
function withoutSecrets(value: unknown): unknown {
  if (typeof value === 'string') return masked(value)
  if (Array.isArray(value)) return value.map(withoutSecrets)
  if (typeof value !== 'object' || value === null || kindOf(value)) return value
  const fields = Object.entries(value).filter(([name]) => !isSecret(name))
  // fromEntries defines its fields, so that `__proto__` stays an ordinary name.
  return Object.fromEntries(fields.map(([name, field]) => [name, withoutSecrets(field)]))
}

/** A string property, whose getter may throw. */
function textOf(error: object, name: 'name' | 'message', otherwise: string): string {
  try {
    const value: unknown = Reflect.get(error, name)
    return typeof value === 'string' ? safeText(value) : otherwise
  } catch {
    return otherwise
  }
}

/** The own enumerable fields that can be encoded and may not be secrets, as many as fit. */
function fieldsOf(error: object): Record<string, unknown> | undefined {
  const fields: [string, unknown][] = []
  let left = MAX_FIELDS
  for (const name of Object.keys(error)) {
    if (OMITTED.has(name) || isSecret(name)) continue
    try {
      const given: unknown = Reflect.get(error, name)
      // Throws unless the field is plain data, at any depth.
      if (jsonCodec.encode(given).length > MAX_FIELD_READ) continue
      const value = withoutSecrets(given)
      const size = jsonCodec.encode(value).length + name.length
      if (size > left) continue
      left -= size
      fields.push([name, value])
    } catch {
      // The field is omitted: the failure itself must be delivered.
    }
  }
  return fields.length > 0 ? Object.fromEntries(fields) : undefined
}

/** Describes a thrown value as data for other processes. Never throws. */
export function describeFailure(error: unknown, depth = 0): RemoteFailure {
  if (typeof error !== 'object' || error === null) {
    return {
      name: 'Error',
      message: typeof error === 'function' ? 'A function was thrown' : safeText(messageOf(error)),
    }
  }
  const failure: RemoteFailure = {
    name: textOf(error, 'name', 'Error'),
    message: textOf(error, 'message', ''),
  }
  try {
    const fields = fieldsOf(error)
    if (fields) failure.fields = fields
    const { code, cause } = error as { code?: unknown; cause?: unknown }
    if (typeof code === 'number') failure.code = code
    if (typeof code === 'string') failure.code = safeText(code)
    if (typeof cause === 'object' && cause !== null && depth < MAX_CAUSES)
      failure.cause = describeFailure(cause, depth + 1)
  } catch {
    // A getter or proxy throws: the fields so far are sent.
  }
  return failure
}

/** Describes a thrown value, and filters it through the hook `exposeError`. If the hook fails, no detail is sent. */
export function exposedFailure(
  exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure,
  context: AsyncContext,
  error: unknown,
): RemoteFailure {
  const exposed = callHook(context, 'exposeError', exposeError, describeFailure(error), error)
  return exposed ?? { name: 'Error', message: 'The work failed' }
}

/** Encodes a failure. Never throws: a failure of the hook that cannot be encoded is replaced. */
export function encodeFailure(failure: RemoteFailure): Buffer {
  try {
    return jsonCodec.encode(failure)
  } catch {
    return jsonCodec.encode({ name: 'Error', message: 'The work failed, and its failure cannot be encoded' })
  }
}

/** Decodes a failure. Never throws: anybody may have written the bytes. */
export function decodeFailure(bytes: Buffer): RemoteFailure {
  try {
    return checkedFailure(jsonCodec.decode(bytes), 0)
  } catch {
    return { name: 'Error', message: 'The work failed, and its failure could not be read' }
  }
}

function checkedFailure(value: unknown, depth: number): RemoteFailure {
  const { name, message, code, fields, cause } = value as Partial<RemoteFailure>
  const failure: RemoteFailure = { name: String(name), message: String(message) }
  if (typeof code === 'string' || typeof code === 'number') failure.code = code
  if (typeof fields === 'object' && fields !== null) failure.fields = fields
  if (typeof cause === 'object' && cause !== null && depth <= MAX_CAUSES)
    failure.cause = checkedFailure(cause, depth + 1)
  return failure
}

/** The error for waiters. `original`: the thrown value, in the process in which the work ran. `ran`: of a call to a service. */
export function remoteError(bytes: Buffer, key: string, original?: unknown, ran?: Ran): RemoteError {
  return new RemoteError(decodeFailure(bytes), { key, cause: original, ran })
}
