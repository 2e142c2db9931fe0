import { RemoteError, type RemoteFailure } from '../../errors.ts'
import { isSecret, masked } from '../../secrets.ts'
import { type AsyncContext, callHook } from '../work/user-code.ts'
import { kindOf } from './binary.ts'
import { jsonCodec, messageOf } from './codec.ts'

/** Own fields of an error that travel, all together at most, in bytes of JSON. */
const MAX_FIELDS = 8 * 1024
/** Bytes of JSON of a field that is looked through for what may travel of it. */
const MAX_FIELD_READ = 16 * MAX_FIELDS
/** Longest name and message that travel, in characters. */
const MAX_TEXT = 8 * 1024
/** Causes of causes that travel. */
const MAX_CAUSES = 3

/** The fields that travel otherwise, or that must not: a stack tells a machine's paths. */
const OMITTED = new Set(['name', 'message', 'code', 'cause', 'stack'])

/** A text that travels: without the credentials of URLs, and no longer than is good. */
function safeText(text: string): string {
  return masked(text.slice(0, 2 * MAX_TEXT)).slice(0, MAX_TEXT)
}

/** A value that the codec carries, without what may be secrets at any depth. */
function withoutSecrets(value: unknown): unknown {
  if (typeof value === 'string') return masked(value)
  if (Array.isArray(value)) return value.map(withoutSecrets)
  if (typeof value !== 'object' || value === null || kindOf(value)) return value
  const fields = Object.entries(value).filter(([name]) => !isSecret(name))
  // fromEntries defines its fields, so that `__proto__` stays an ordinary name.
  return Object.fromEntries(fields.map(([name, field]) => [name, withoutSecrets(field)]))
}

/** A property whose getter may throw, as text. */
function textOf(error: object, name: 'name' | 'message', otherwise: string): string {
  try {
    const value: unknown = Reflect.get(error, name)
    return typeof value === 'string' ? safeText(value) : otherwise
  } catch {
    return otherwise
  }
}

/** The own enumerable fields that the codec carries, without those that may hold secrets, as many as fit. */
function fieldsOf(error: object): Record<string, unknown> | undefined {
  const fields: [string, unknown][] = []
  let left = MAX_FIELDS
  for (const name of Object.keys(error)) {
    if (OMITTED.has(name) || isSecret(name)) continue
    try {
      const given: unknown = Reflect.get(error, name)
      // Refuses what is no plain data, at whatever depth.
      if (jsonCodec.encode(given).length > MAX_FIELD_READ) continue
      const value = withoutSecrets(given)
      const size = jsonCodec.encode(value).length + name.length
      if (size > left) continue
      left -= size
      fields.push([name, value])
    } catch {
      // What cannot be read or carried stays behind; the failure itself must arrive.
    }
  }
  return fields.length > 0 ? Object.fromEntries(fields) : undefined
}

/** What of a thrown value travels to other processes. Never throws. */
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
    // A getter or proxy that throws has nothing to tell.
  }
  return failure
}

/** What of a failure leaves the process; nothing but that it happened, if the hook that decides it fails. */
export function exposedFailure(
  exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure,
  context: AsyncContext,
  error: unknown,
): RemoteFailure {
  const exposed = callHook(context, 'exposeError', exposeError, describeFailure(error), error)
  return exposed ?? { name: 'Error', message: 'The work failed' }
}

/** Bytes of a failure. A hook may have made one that cannot be carried: then that is what is told. */
export function encodeFailure(failure: RemoteFailure): Buffer {
  try {
    return jsonCodec.encode(failure)
  } catch {
    return jsonCodec.encode({ name: 'Error', message: 'The work failed, and its failure cannot be carried' })
  }
}

/** Reads a failure that may come from anybody: whatever the bytes are, it is one. */
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

/** The error that a waiter receives. `original`: the thrown value, in the process where the work ran. */
export function remoteError(bytes: Buffer, key: string, original?: unknown): RemoteError {
  return new RemoteError(decodeFailure(bytes), { key, cause: original })
}
