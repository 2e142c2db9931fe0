/** One kind of binary value, and how it is known in encodings. */
export interface BinaryKind {
  readonly letter: string
  /** Its bytes, in place. */
  bytes(value: object): Buffer
}

type Make = (memory: ArrayBuffer) => object

/** Letters are part of the stored format: they are never given to another kind. */
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

/** How long the chain of prototypes is: a subclass has a longer one. */
function depthOf(value: object): number {
  let depth = 0
  for (let at: object | null = Object.getPrototypeOf(value); at; at = Object.getPrototypeOf(at)) depth++
  return depth
}

const depths = new Map(KINDS.map(([, tag, make]) => [tag, depthOf(make(new ArrayBuffer(0)))]))

/** Which kind of binary `value` is; undefined for everything else, instances of subclasses included. */
export function kindOf(value: object): BinaryKind | undefined {
  if (!ArrayBuffer.isView(value) && !(value instanceof ArrayBuffer)) return undefined
  const tag = Buffer.isBuffer(value)
    ? 'Buffer'
    : Object.prototype.toString.call(value).slice('[object '.length, -1)
  return depthOf(value) === depths.get(tag) ? byTag.get(tag) : undefined
}

/** The maker for a letter. Throws for one that no kind has. */
export function binaryKind(letter: string): Make {
  const make = makers.get(letter)
  if (!make) throw new Error(`unknown binary kind ${JSON.stringify(letter)}`)
  return make
}

/** A binary value out of its bytes, in memory of its own: aligned, and shared with nobody. */
export function rebuild(make: Make, source: Buffer): object {
  const memory = new ArrayBuffer(source.byteLength)
  new Uint8Array(memory).set(source)
  return make(memory)
}

/** Bytes that a kept buffer may share its memory with, beside an eighth of its own. */
const MAX_SLACK = 1024

/**
 * The same bytes, to be kept: copied if they are a small part of a larger memory, all of which would be kept with them.
 * That is so for what was read from a socket (parts of 64 KiB, or of the parser's buffers of many megabytes), and for
 * small Buffers, which Node cuts out of pools.
 */
export function ownedBytes(source: Buffer): Buffer {
  const slack = source.buffer.byteLength - source.byteLength
  if (slack <= MAX_SLACK + source.byteLength / 8) return source
  const own = Buffer.allocUnsafeSlow(source.byteLength)
  own.set(source)
  return own
}
