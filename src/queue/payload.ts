import serialize from 'canonicalize'
import { CodecError, TooLargeError } from '../errors.ts'
import { messageOf } from '../kernel/codec.ts'
import { Survey } from '../kernel/survey.ts'

// Its types tell of a default export; what CommonJS exports is the function itself.
const canonicalize = serialize as unknown as (value: unknown) => string

/**
 * The canonical JSON of a payload (RFC 8785): the same bytes for whoever means the same. `undefined` is no bytes.
 * Throws CodecError with the path to what JSON cannot carry, TooLargeError above `most` bytes.
 */
export function encodePayload(payload: unknown, most: number): Buffer {
  if (payload === undefined) return Buffer.alloc(0)
  const bytes = Buffer.from(canonical(payload))
  if (bytes.length <= most) return bytes
  throw new TooLargeError(`The payload has ${bytes.length} bytes; \`maxPayload\` is ${most}`)
}

function canonical(payload: unknown): string {
  new Survey({ plain: true }).visit(payload)
  try {
    return canonicalize(payload)
  } catch (cause) {
    // The survey has let it pass: it reads differently each time.
    throw new CodecError(`The payload cannot be carried as JSON: ${messageOf(cause)}`, { cause })
  }
}

/** The payload of its bytes. Throws CodecError for what no {@link encodePayload} wrote. */
export function decodePayload(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined
  try {
    return JSON.parse(bytes.toString())
  } catch (cause) {
    throw new CodecError('The stored payload is not JSON', { cause })
  }
}
