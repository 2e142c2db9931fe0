import { CodecError, type Ran } from '../../errors.ts'
import { MESSAGE_LIMIT } from '../keys.ts'
import { checkFunction } from '../options.ts'
import { binaryKind, kindOf, ownedBytes, rebuild } from './binary.ts'
import { JsonText } from './json-text.ts'

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

/** Checks a codec. @throws TypeError */
export function checkCodec(name: string, value: unknown): void {
  const { encode, decode, size } = (value ?? {}) as Partial<Codec>
  checkFunction(`${name}.encode`, encode)
  checkFunction(`${name}.decode`, decode)
  if (size !== undefined) checkFunction(`${name}.size`, size)
}

/** Appended to the errors of the built-in codec. */
const ADVICE =
  ': convert it first (a Date or BigInt to a string, a Map or Set to an array, an instance to a plain object), or give the option `codec`'

/** Encodes a value. @throws CodecError, with `ran`, for any error of the codec, and if it does not return bytes. */
export function encodeWith(codec: Codec, value: unknown, ran?: Ran): Buffer {
  let bytes: unknown
  try {
    bytes = codec.encode(value)
  } catch (cause) {
    throw new CodecError(messageOf(cause) + (codec.encode === jsonCodec.encode ? ADVICE : ''), { cause, ran })
  }
  if (Buffer.isBuffer(bytes)) return bytes
  if (bytes instanceof Uint8Array) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  throw new CodecError(`The codec did not return a Buffer but ${typeof bytes}`, { ran })
}

/** Encodes a value that is shown as progress. @throws CodecError also if it is too large for a message. */
export function encodeProgress(codec: Codec, value: unknown, key: string): Buffer {
  const bytes = encodeWith(codec, value)
  if (bytes.length <= MESSAGE_LIMIT) return bytes
  throw new CodecError(`Progress of ${bytes.length} bytes is too large`, { key })
}

/**
 * Decodes a value. @throws CodecError, with `ran`, for any error of the codec, and if it returns a thenable, which `await` would
 * follow.
 */
export function decodeWith(codec: Codec, bytes: Buffer, key: string, ran?: Ran): unknown {
  try {
    // jsonCodec copies. Another codec may return views of the bytes, which are then retained.
    const value = codec.decode(codec === jsonCodec ? bytes : ownedBytes(bytes))
    if (typeof (value as { then?: unknown } | null | undefined)?.then === 'function')
      throw new Error('a thenable')
    return value
  } catch (cause) {
    throw new CodecError(`The stored result cannot be read: ${messageOf(cause)}`, { key, cause, ran })
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

/** Deepest nesting of objects and arrays. */
const MAX_DEPTH = 1000

/** An object whose only key is this represents a value that JSON cannot. */
const ESCAPE = '$'

/** What JSON would change, and where it stands: the steps from there up to the root. */
class Refusal {
  readonly what: string
  readonly steps: (string | number)[] = []

  constructor(what: string) {
    this.what = what
  }

  /** As an error about the whole value. What is too deep may be a cycle: that is not looked for before. */
  in(value: unknown): CodecError {
    const path = this.steps.toReversed()
    const cycle = path.length === MAX_DEPTH ? cycleOn(path, value) : undefined
    const steps = cycle ?? path
    const what = cycle ? 'A cycle' : this.what
    const shown = steps.length > 12 ? [...steps.slice(0, 12), '…'] : steps
    return new CodecError(`${what} at ${pathOf(shown)} cannot be represented in JSON`)
  }
}

function pathOf(steps: readonly (string | number)[]): string {
  return `$${steps.map((step) => (typeof step === 'number' ? `[${step}]` : /^[A-Za-z_]\w*$/.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`)).join('')}`
}

/** The first part of a path, up to an object that contains itself; undefined: there is none. */
function cycleOn(path: readonly (string | number)[], value: unknown): (string | number)[] | undefined {
  const ancestors = new Set([value])
  let part = value
  for (const [index, step] of path.entries()) {
    part = (part as Record<string | number, unknown>)[step]
    if (ancestors.has(part)) return path.slice(0, index + 1)
    ancestors.add(part)
  }
  return undefined
}

/** What is thrown on, once the part that is refused is known to stand behind this step. */
function behind(step: string | number, error: unknown): unknown {
  if (error instanceof Refusal) error.steps.push(step)
  return error
}

/** Whether an object is the `Object.prototype` of this realm or another. */
function isRootPrototype(prototype: object): boolean {
  return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'isPrototypeOf')
}

/** Whether an object was created by a literal, `JSON.parse` or `Object.create(null)`, in any realm. */
function isPlainObject(value: object): boolean {
  const prototype: object | null = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype || isRootPrototype(prototype)
}

/** Whether an array has no holes, and no fields besides its elements. */
function isDense(value: unknown[]): boolean {
  return Object.keys(value).length === value.length && Object.getOwnPropertySymbols(value).length === 0
}

/** JSON.stringify calls toJSON instead of reading the value. */
function hasToJson(value: object): boolean {
  return 'toJSON' in value && typeof value.toJSON === 'function'
}

function nameOfClass(value: object): string {
  return typeof value.constructor === 'function' && value.constructor.name
    ? value.constructor.name
    : 'a class'
}

export interface JsonValidatorOptions {
  /** Accepts only values that JSON can represent, and fields that are undefined, which JSON omits. */
  plain?: boolean
}

/**
 * Visits every part of a value once. Throws a CodecError that names the path of the first part that JSON would change. Each
 * value that is encoded passes it: the path is put together only when a part is refused.
 */
export class JsonValidator {
  /** Whether the value has parts that must be escaped, because JSON cannot represent them. */
  needsEscape = false
  readonly #plain: boolean

  constructor({ plain = false }: JsonValidatorOptions = {}) {
    this.#plain = plain
  }

  validate(value: unknown): void {
    try {
      this.#visit(value, 0)
    } catch (error) {
      throw error instanceof Refusal ? error.in(value) : error
    }
  }

  #visit(value: unknown, depth: number): void {
    switch (typeof value) {
      case 'string':
        if (this.#plain) this.#text(value)
        return
      case 'boolean':
        return
      case 'number':
        if (!Number.isFinite(value)) this.#notInJson(`${value}`)
        if (Object.is(value, -0)) this.needsEscape = true
        return
      case 'undefined':
        this.#notInJson('undefined')
        return
      case 'object':
        if (value !== null) this.#object(value, depth)
        return
      default:
        throw new Refusal(`A ${typeof value}`)
    }
  }

  /** A value that is not representable in JSON, but can be escaped. */
  #notInJson(what: string): void {
    if (this.#plain) throw new Refusal(what)
    this.needsEscape = true
  }

  /** A lone surrogate has no encoding in UTF-8. */
  #text(text: string): void {
    if (!text.isWellFormed()) throw new Refusal('A lone surrogate')
  }

  #object(value: object, depth: number): void {
    if (depth === MAX_DEPTH) throw new Refusal(`Nesting deeper than ${MAX_DEPTH}`)
    const isArray = Array.isArray(value)
    if (!isArray && Object.getPrototypeOf(value) !== Object.prototype && kindOf(value))
      return this.#notInJson('A binary value')
    if (isArray) this.#array(value, depth)
    else this.#fields(value, depth)
    if (hasToJson(value)) throw new Refusal(`An instance of ${nameOfClass(value)}, with toJSON,`)
  }

  #array(value: unknown[], depth: number): void {
    const prototype = Object.getPrototypeOf(value)
    if (prototype !== Array.prototype && !isPlainObject(prototype))
      throw new Refusal(`An instance of ${nameOfClass(value)}`)
    if (!isDense(value)) throw new Refusal('An array with holes, or fields besides its elements,')
    let index = 0
    try {
      for (; index < value.length; index++) this.#visit(value[index], depth + 1)
    } catch (error) {
      throw behind(index, error)
    }
  }

  #fields(value: object, depth: number): void {
    if (!isPlainObject(value)) throw new Refusal(`An instance of ${nameOfClass(value)}`)
    if (Object.getOwnPropertySymbols(value).length > 0) throw new Refusal('An object with a symbol as key')
    let step = ''
    try {
      for (const name of Object.keys(value)) {
        step = name
        const field = (value as Record<string, unknown>)[name]
        if (name === ESCAPE) this.needsEscape = true
        if (this.#plain && field === undefined) continue
        if (this.#plain) this.#text(name)
        this.#visit(field, depth + 1)
      }
    } catch (error) {
      throw behind(step, error)
    }
  }
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
 * CodecError that names their path. A {@link JsonText} is written as its text, unless it is a part of another value.
 */
export const jsonCodec: Codec = {
  encode(value) {
    if (value instanceof JsonText) return Buffer.from(PLAIN + value.text)
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
