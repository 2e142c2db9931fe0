import serialize from 'canonicalize'
import { CodecError, TooLargeError } from '../../errors.ts'
import { JsonValidator, messageOf } from '../../kernel/codec/codec.ts'

// The types declare a default export, but the CommonJS module exports the function itself.
const canonicalize = serialize as unknown as (value: unknown) => string

/**
 * Encodes a payload as JSON; `undefined` as ''. `canonical`: in the canonical form of RFC 8785, so equal payloads have equal
 * texts. Throws CodecError with the path to a value that JSON cannot represent, TooLargeError above `maxBytes`.
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
    // The payload was valid a moment ago: one of its getters returns another value each time.
    throw new CodecError(`The payload cannot be carried as JSON: ${messageOf(cause)}`, { cause })
  }
}

/** Decodes a payload that {@link encodePayload} encoded. Throws CodecError if the text is not JSON. */
export function decodePayload(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new CodecError('The stored payload is not JSON', { cause })
  }
}
