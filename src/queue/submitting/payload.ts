import serialize from 'canonicalize'
import { CodecError, TooLargeError } from '../../errors.ts'
import { messageOf } from '../../kernel/codec/codec.ts'
import { JsonValidator } from '../../kernel/codec/json-validator.ts'

// Its types tell of a default export; what CommonJS exports is the function itself.
const canonicalize = serialize as unknown as (value: unknown) => string

/**
 * The JSON of a payload; '' for `undefined`. `canonical`: as RFC 8785 has it, the same text for whoever means the same.
 * Throws CodecError with the path to what JSON cannot carry, TooLargeError above `maxBytes`.
 */
export function encodePayload(payload: unknown, maxBytes: number, canonical: boolean): string {
  if (payload === undefined) return ''
  const text = toJson(payload, canonical ? canonicalize : JSON.stringify)
  const bytes = Buffer.byteLength(text)
  if (bytes <= maxBytes) return text
  throw new TooLargeError(`The payload has ${bytes} bytes; \`maxPayload\` is ${maxBytes}`)
}

function toJson(payload: unknown, write: (value: unknown) => string): string {
  new JsonValidator({ plain: true }).validate(payload)
  try {
    return write(payload)
  } catch (cause) {
    // The survey has let it pass: a getter of it answers differently each time.
    throw new CodecError(`The payload cannot be carried as JSON: ${messageOf(cause)}`, { cause })
  }
}

/** The payload of its text. Throws CodecError for what no {@link encodePayload} wrote. */
export function decodePayload(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new CodecError('The stored payload is not JSON', { cause })
  }
}
