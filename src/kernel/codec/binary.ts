/** A kind of binary value. */
export interface BinaryKind {
  /** Its name in encodings. */
  readonly letter: string
  /** The bytes of a value, in the same memory. */
  bytes(value: object): Buffer
}

type Make = (memory: ArrayBuffer) => object

/** The letters are part of the stored format: a letter is never reused. */
const KINDS: readonly (readonly [letter: string, tag: string, make: Make])[] = [
  ['b', 'Buffer', (memory) => Buffer.from(memory)],
  ['a', 'ArrayBuffer', (memory) => memory],
  ['v', 'DataView', (memory) => new DataView(memory)],
  ['1', 'Uint8Array', (memory) => new Uint8Array(memory)],
  ['c', 'Uint8ClampedArray', (memory) => new Uint8ClampedArray(memory)],
  ['i', 'Int8Array', (memory) => new Int8Array(memory)],
  ['2', 'Uint16Array', (memory) => new Uint16Array(memory)],
  ['s', 'Int16Array', (memory) => new Int16Array(memory)],
  ['4', 'Uint32Array', (memory) => new Uint32Array(memory)],
  ['l', 'Int32Array', (memory) => new Int32Array(memory)],
  ['f', 'Float32Array', (memory) => new Float32Array(memory)],
  ['d', 'Float64Array', (memory) => new Float64Array(memory)],
  ['8', 'BigUint64Array', (memory) => new BigUint64Array(memory)],
  ['q', 'BigInt64Array', (memory) => new BigInt64Array(memory)],
]

function bytes(value: object): Buffer {
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  return Buffer.from(value as ArrayBuffer)
}

const byTag = new Map<string, BinaryKind>(KINDS.map(([letter, tag]) => [tag, { letter, bytes }]))
const makers = new Map<string, Make>(KINDS.map(([letter, , make]) => [letter, make]))

/** Length of the prototype chain: that of a subclass is longer. */
function depthOf(value: object): number {
  let depth = 0
  for (let at: object | null = Object.getPrototypeOf(value); at; at = Object.getPrototypeOf(at)) depth++
  return depth
}

const depths = new Map(KINDS.map(([, tag, make]) => [tag, depthOf(make(new ArrayBuffer(0)))]))

/** The kind of a binary value; undefined for all other values, including instances of subclasses. */
export function kindOf(value: object): BinaryKind | undefined {
  if (!ArrayBuffer.isView(value) && !(value instanceof ArrayBuffer)) return undefined
  const tag = Buffer.isBuffer(value)
    ? 'Buffer'
    : Object.prototype.toString.call(value).slice('[object '.length, -1)
  return depthOf(value) === depths.get(tag) ? byTag.get(tag) : undefined
}

/** The constructor for a letter. Throws if the letter is unknown. */
export function binaryKind(letter: string): Make {
  const make = makers.get(letter)
  if (!make) throw new Error(`unknown binary kind ${JSON.stringify(letter)}`)
  return make
}

/** Creates a binary value from its bytes, in new memory: aligned, and not shared. */
export function rebuild(make: Make, source: Buffer): object {
  const memory = new ArrayBuffer(source.byteLength)
  new Uint8Array(memory).set(source)
  return make(memory)
}

/** A retained buffer may keep this many unused bytes of its memory alive, plus an eighth of its length. */
const MAX_SLACK = 1024

/**
 * The same bytes, for retention. They are copied if they are a small part of their memory, all of which would be retained.
 * That is the case for bytes read from a socket (parts of 64 KiB, or of the parser's buffers of many megabytes), and for
 * small Buffers, which Node allocates in pools.
 */
export function ownedBytes(source: Buffer): Buffer {
  const slack = source.buffer.byteLength - source.byteLength
  if (slack <= MAX_SLACK + source.byteLength / 8) return source
  const own = Buffer.allocUnsafeSlow(source.byteLength)
  own.set(source)
  return own
}
