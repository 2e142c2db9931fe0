import { CodecError } from '../../errors.ts'
import { checkFunction } from '../options.ts'
import { binaryKind, kindOf, ownedBytes, rebuild } from './binary.ts'
import { ESCAPE, JsonValidator } from './json-validator.ts'

/**
 * How values become bytes and come back. What `decode` returns must be equal to what `encode` was given; a value for
 * which that is impossible must make `encode` throw. Neither may run code out of the bytes.
 */
export interface Codec {
  /** Bytes for a value. Throws when the value cannot be carried unchanged. */
  encode(value: unknown): Buffer
  /** The value, fresh at every call and sharing no memory with `bytes`. */
  decode(bytes: Buffer): unknown
  /**
   * Bytes that a decoded value takes in memory, given how many its encoding has: for the bound of the in-process cache.
   * By default those of the encoding for texts and other primitives, the memory behind it for a binary value, and three
   * times those of the encoding for everything else.
   */
  size?(value: unknown, encoded: number): number
}

/** The message of a thrown value, whatever it is. Never throws. */
export function messageOf(thrown: unknown): string {
  try {
    // By its shape: an error of another realm, as Node's own are under Jest, is no instance of ours.
    const { message } = (thrown ?? {}) as { message?: unknown }
    return typeof thrown === 'object' && typeof message === 'string' ? message : String(thrown)
  } catch {
    return 'something that has no text was thrown'
  }
}

/** Checks a codec. */
export function checkCodec(codec: Codec): Codec {
  checkFunction('codec.encode', codec?.encode)
  checkFunction('codec.decode', codec?.decode)
  if (codec.size !== undefined) checkFunction('codec.size', codec.size)
  return codec
}

/** What to do about what the built-in codec does not carry. */
const ADVICE =
  ': convert it first (a Date or BigInt to a string, a Map or Set to an array, an instance to a plain object), or give the option `codec`'

/** Bytes of a value. Throws CodecError, also for a codec that throws something else, or returns no bytes. */
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

/** The value of bytes. Throws CodecError, also for a thenable: whoever awaits it would wait for that. */
export function decodeWith(codec: Codec, bytes: Buffer, key: string): unknown {
  try {
    // jsonCodec copies whatever it returns. Another codec may return views, which are kept.
    const value = codec.decode(codec === jsonCodec ? bytes : ownedBytes(bytes))
    if (typeof (value as { then?: unknown } | null | undefined)?.then === 'function')
      throw new Error('a thenable')
    return value
  } catch (cause) {
    throw new CodecError(`The stored result cannot be read: ${messageOf(cause)}`, { key, cause })
  }
}

/** Objects hold more than their JSON: 0.4 times (floats) to 3.1 times (many small objects) was measured. */
const OBJECT_FACTOR = 3

/** Bytes that a decoded value takes in memory, by estimate. `encoded`: how many its encoding has. */
export function sizeOf(codec: Codec, value: unknown, encoded: number): number {
  if (codec.size) return Math.ceil(codec.size(value, encoded))
  if (typeof value !== 'object' || value === null) return encoded
  if (ArrayBuffer.isView(value)) return value.buffer.byteLength
  return value instanceof ArrayBuffer ? value.byteLength : OBJECT_FACTOR * encoded
}

// First byte of every encoding.
const PLAIN = 'j' // JSON as it is
const ESCAPED = 'x' // JSON with escapes
const BINARY = 't' // a binary value as it is, after one byte that tells which kind

/** The same value with everything that JSON lacks replaced by `{ "$": … }`. Only for what a Survey let pass. */
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
 * JSON, and beyond it exact: `undefined`, `-0`, `NaN`, the infinities, Buffers, typed arrays, DataViews and
 * ArrayBuffers, at any depth. What it would change (dates, maps, sets, bigints, functions, symbols, class instances,
 * cycles) throws a CodecError that names the path to it.
 */
export const jsonCodec: Codec = {
  encode(value) {
    const kind = typeof value === 'object' && value !== null ? kindOf(value) : undefined
    if (kind) return Buffer.concat([Buffer.from(BINARY + kind.letter), kind.bytes(value as object)])
    const survey = new JsonValidator()
    survey.validate(value)
    return Buffer.from(
      survey.needsEscape ? ESCAPED + JSON.stringify(escaped(value)) : PLAIN + JSON.stringify(value),
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
