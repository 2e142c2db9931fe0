import { CodecError } from '../../errors.ts'
import { checkFunction } from '../options.ts'
import { binaryKind, kindOf, ownedBytes, rebuild } from './binary.ts'
import { ESCAPE, JsonValidator } from './json-validator.ts'

/**
 * Encodes values as bytes. `decode` must return a value equal to the one that `encode` was given; `encode` must throw if that
 * is impossible. Decoding must not run code from the bytes.
 */
export interface Codec {
  /** Encodes a value. Throws if the value would change. */
  encode(value: unknown): Buffer
  /** Decodes a value. Each call must return a new value that shares no memory with `bytes`. */
  decode(bytes: Buffer): unknown
  /**
   * Estimates the bytes that a decoded value takes in memory, given the bytes of its encoding: for the bound of the in-process
   * cache. By default this is `encoded` for strings and other primitives, the size of its memory for a binary value, and
   * three times `encoded` for everything else.
   */
  size?(value: unknown, encoded: number): number
}

/** The message of any thrown value. Never throws. */
export function messageOf(thrown: unknown): string {
  try {
    // By its shape: an error of another realm (under Jest, those of Node) is not an instance of our Error.
    const { message } = (thrown ?? {}) as { message?: unknown }
    return typeof thrown === 'object' && typeof message === 'string' ? message : String(thrown)
  } catch {
    return 'something that has no text was thrown'
  }
}

/** Checks a codec. Returns it. @throws TypeError */
export function checkCodec(codec: Codec): Codec {
  checkFunction('codec.encode', codec?.encode)
  checkFunction('codec.decode', codec?.decode)
  if (codec.size !== undefined) checkFunction('codec.size', codec.size)
  return codec
}

/** Appended to the errors of the built-in codec. */
const ADVICE =
  ': convert it first (a Date or BigInt to a string, a Map or Set to an array, an instance to a plain object), or give the option `codec`'

/** Encodes a value. @throws CodecError for any error of the codec, and if it does not return bytes. */
export function encodeWith(codec: Codec, value: unknown): Buffer {
  let bytes: unknown
  try {
    bytes = codec.encode(value)
  } catch (cause) {
    throw new CodecError(messageOf(cause) + (codec === jsonCodec ? ADVICE : ''), { cause })
  }
  if (Buffer.isBuffer(bytes)) return bytes
  if (bytes instanceof Uint8Array) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  throw new CodecError(`The codec did not return a Buffer but ${typeof bytes}`)
}

/** Decodes a value. @throws CodecError for any error of the codec, and if it returns a thenable, which `await` would follow. */
export function decodeWith(codec: Codec, bytes: Buffer, key: string): unknown {
  try {
    // jsonCodec copies. Another codec may return views of the bytes, which are then retained.
    const value = codec.decode(codec === jsonCodec ? bytes : ownedBytes(bytes))
    if (typeof (value as { then?: unknown } | null | undefined)?.then === 'function')
      throw new Error('a thenable')
    return value
  } catch (cause) {
    throw new CodecError(`The stored result cannot be read: ${messageOf(cause)}`, { key, cause })
  }
}

/** Memory of an object by the bytes of its JSON: measured 0.4 (floats) to 3.1 (many small objects). */
const OBJECT_FACTOR = 3

/** Estimates the bytes that a decoded value takes in memory. `encoded`: the bytes of its encoding. */
export function sizeOf(codec: Codec, value: unknown, encoded: number): number {
  if (codec.size) return Math.ceil(codec.size(value, encoded))
  if (typeof value !== 'object' || value === null) return encoded
  if (ArrayBuffer.isView(value)) return value.buffer.byteLength
  return value instanceof ArrayBuffer ? value.byteLength : OBJECT_FACTOR * encoded
}

// First byte of every encoding.
const PLAIN = 'j' // JSON as it is
const ESCAPED = 'x' // JSON with escapes
const BINARY = 't' // one byte for the kind, then the bytes of a binary value

/** Replaces everything that JSON cannot represent by `{ "$": … }`. The value must have passed a JsonValidator. */
function escaped(value: unknown): unknown {
  if (value === undefined) return { [ESCAPE]: 'undefined' }
  if (typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0))) {
    return { [ESCAPE]: Object.is(value, -0) ? '-0' : String(value) }
  }
  if (typeof value !== 'object' || value === null) return value
  const kind = kindOf(value)
  if (kind) return { [ESCAPE]: [kind.letter, kind.bytes(value).toString('base64')] }
  if (Array.isArray(value)) return Array.from(value, escaped)
  const fields = mapFields(value, escaped)
  return ESCAPE in fields ? { [ESCAPE]: fields } : fields
}

function mapFields(value: object, map: (field: unknown) => unknown): Record<string, unknown> {
  // fromEntries defines its fields, so that `__proto__` stays an ordinary name.
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, map(field)]))
}

/** Undoes {@link escaped}. */
function revived(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(revived)
  const names = Object.keys(value)
  if (names.length !== 1 || names[0] !== ESCAPE) return mapFields(value, revived)
  const special = (value as Record<string, unknown>)[ESCAPE]
  if (Array.isArray(special)) {
    return rebuild(binaryKind(String(special[0])), Buffer.from(String(special[1]), 'base64'))
  }
  if (typeof special === 'object' && special !== null) return mapFields(special, revived)
  return special === 'undefined' ? undefined : Number(special)
}

function decode(bytes: Buffer): unknown {
  const form = String.fromCharCode(bytes[0] ?? 0)
  if (form === PLAIN) return JSON.parse(bytes.toString('utf8', 1))
  if (form === ESCAPED) return revived(JSON.parse(bytes.toString('utf8', 1)))
  if (form === BINARY) return rebuild(binaryKind(String.fromCharCode(bytes[1] ?? 0)), bytes.subarray(2))
  throw new Error(`unknown form ${JSON.stringify(form)}`)
}

/**
 * JSON, extended by `undefined`, `-0`, `NaN`, the infinities, Buffers, typed arrays, DataViews and ArrayBuffers, at any depth.
 * Other values that JSON would change (dates, maps, sets, bigints, functions, symbols, class instances, cycles) throw a
 * CodecError that names their path.
 */
export const jsonCodec: Codec = {
  encode(value) {
    const kind = typeof value === 'object' && value !== null ? kindOf(value) : undefined
    if (kind) return Buffer.concat([Buffer.from(BINARY + kind.letter), kind.bytes(value as object)])
    const validator = new JsonValidator()
    validator.validate(value)
    return Buffer.from(
      validator.needsEscape ? ESCAPED + JSON.stringify(escaped(value)) : PLAIN + JSON.stringify(value),
    )
  },

  decode(bytes) {
    try {
      return decode(bytes)
    } catch (cause) {
      throw new CodecError('The stored bytes are not what this codec wrote', { cause })
    }
  },
}
