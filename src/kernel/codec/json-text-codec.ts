import { CodecError } from '../../errors.ts'
import { type Codec, jsonCodec } from './codec.ts'
import { JsonText } from './json-text.ts'

/** First byte of what `jsonCodec` writes as plain JSON. */
const PLAIN = 'j'.charCodeAt(0)

/**
 * Reads what `jsonCodec` writes as a {@link JsonText}: byte for byte if it is plain JSON. Any other value is read as the JSON
 * that `JSON.stringify` makes of it; `undefined` as `null`. It encodes as `jsonCodec` does, so both may be used for one queue;
 * and an array of JsonText, as the arguments of a call are, by the texts of its elements.
 */
export const jsonTextCodec: Codec = {
  encode(value) {
    const isArguments = Array.isArray(value) && value.length > 0 && value.every(isText)
    return jsonCodec.encode(isArguments ? JsonText.parse(`[${value.map(({ text }) => text).join()}]`) : value)
  },

  decode(bytes) {
    if (bytes[0] === PLAIN) return JsonText.parse(bytes.toString('utf8', 1))
    const value = jsonCodec.decode(bytes)
    try {
      return JsonText.parse(JSON.stringify(value) ?? 'null')
    } catch (cause) {
      throw new CodecError('The stored value has no JSON', { cause })
    }
  },

  /** In memory a character takes one byte or two. */
  size: (_value, encoded) => 2 * encoded,
}

function isText(value: unknown): value is JsonText {
  return value instanceof JsonText
}
