import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { CodecError } from '../../src/errors.ts'
import { jsonCodec } from '../../src/kernel/codec/codec.ts'

const there = (value: unknown) => jsonCodec.encode(value)
const back = (value: unknown) => jsonCodec.decode(there(value))

const VIEWS = [
  Uint8Array,
  Uint8ClampedArray,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  Float64Array,
  BigUint64Array,
  BigInt64Array,
]

/** A copy at the beginning of new memory. */
function memoryOf(bytes: Uint8Array): ArrayBuffer {
  const memory = new ArrayBuffer(bytes.byteLength)
  new Uint8Array(memory).set(bytes)
  return memory
}

/** Every kind of binary value, some of them a view of a larger memory. */
const binary = fc
  .tuple(fc.uint8Array({ maxLength: 64 }), fc.nat({ max: VIEWS.length + 2 }))
  .map(([bytes, kind]) => {
    const View = VIEWS[kind]
    if (View)
      return new View(memoryOf(bytes.subarray(0, bytes.length - (bytes.length % View.BYTES_PER_ELEMENT))))
    if (kind === VIEWS.length) return Buffer.from(bytes)
    return kind === VIEWS.length + 1 ? memoryOf(bytes) : new DataView(memoryOf(bytes), bytes.length >> 1)
  })

/** Any UTF-16, including lone surrogates. */
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc
    .array(fc.integer({ min: 0xd7f0, max: 0xe010 }), { maxLength: 4 })
    .map((units) => String.fromCharCode(...units)),
)
const name = fc.oneof(
  text,
  fc.constantFrom('__proto__', 'constructor', 'prototype', 'toString', '$', '$$', '', 'toJSON', '0'),
)
const leaf = fc.oneof(
  text,
  fc.boolean(),
  fc.double(),
  fc.maxSafeInteger(),
  fc.constantFrom(
    undefined,
    null,
    -0,
    0,
    NaN,
    Infinity,
    -Infinity,
    2 ** 53 + 2,
    2 ** 53,
    5e-324,
    1.7976931348623157e308,
    '',
    '$',
  ),
  binary,
)
/** Everything that can be encoded, at any depth. Fields are defined, not assigned, so `__proto__` is an ordinary field. */
const carried = fc.letrec<{ any: unknown }>((tie) => ({
  any: fc.oneof(
    { depthSize: 'medium', withCrossShrink: true },
    leaf,
    fc.array(tie('any'), { maxLength: 5 }),
    fc.array(fc.tuple(name, tie('any')), { maxLength: 5 }).map((fields) => Object.fromEntries(fields)),
  ),
})).any

describe('codec - round trips', () => {
  test('codec - every value that is encoded is decoded as an equal one, at any depth', () => {
    fc.assert(
      fc.property(carried, (value) => {
        assert.deepStrictEqual(back(value), value)
      }),
      { numRuns: 2000 },
    )
  })

  test('codec - a decoded value is encoded to the same bytes', () => {
    fc.assert(fc.property(carried, (value) => there(back(value)).equals(there(value))))
  })

  test('codec - special numbers and undefined keep their kind, alone and within', () => {
    for (const value of [undefined, null, -0, 0, NaN, Infinity, -Infinity, 2 ** 53 + 2, false, '', [], {}]) {
      for (const whole of [value, [value], { field: value }, { $: value }, { $: { $: value } }]) {
        assert.deepStrictEqual(back(whole), whole)
      }
    }
    assert.ok(Object.is(back(-0), -0), 'Object.is(back(-0), -0)')
    assert.ok(
      'field' in (back({ field: undefined }) as object),
      '"field" in (back({ field: undefined }) as object)',
    )
  })

  test('codec - 2^53+1 as a number is rounded as numbers are, and as text it is unchanged', () => {
    assert.equal(back(2 ** 53 + 1), 2 ** 53)
    assert.equal(back('9007199254740993'), '9007199254740993')
  })

  test('codec - a binary value at the top costs two bytes, whatever its kind', () => {
    for (const value of [
      Buffer.alloc(100),
      new ArrayBuffer(100),
      new Uint8Array(100),
      new DataView(new ArrayBuffer(100)),
    ]) {
      assert.equal(there(value).length, 102)
    }
  })

  test('codec - objects without a prototype and of another realm are plain', () => {
    const bare = Object.assign(Object.create(null), { a: 1 })
    assert.deepStrictEqual(back(bare), { a: 1 })
    assert.deepStrictEqual(back(runInNewContext('({ a: [1, undefined, { b: -0 }] })')), {
      a: [1, undefined, { b: -0 }],
    })
  })

  test('codec - names of prototypes are names like others, and pollute nothing', () => {
    const hostile = JSON.parse(
      '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}',
    ) as object
    for (const value of [hostile, { $: hostile, more: undefined }, [hostile, NaN]]) {
      assert.deepStrictEqual(back(value), value)
      assert.equal(Object.getPrototypeOf(back(hostile)), Object.prototype)
    }
    assert.equal('polluted' in {}, false)
  })

  test('codec - a decoded value shares memory neither with the original nor with the bytes', () => {
    fc.assert(
      fc.property(carried, (value) => {
        const bytes = there(value)
        const first = jsonCodec.decode(bytes)
        bytes.fill(0xff, 1)
        assert.deepStrictEqual(first, value)
      }),
    )
    const pool = Buffer.from('abcdef')
    for (const source of [pool, pool.subarray(2, 4), new DataView(pool.buffer, pool.byteOffset, 3)]) {
      for (const whole of [source, { source, extra: undefined }]) {
        const bytes = there(whole)
        const copy = Buffer.from(bytes)
        pool.reverse()
        assert.deepEqual(bytes, copy)
        const decoded = jsonCodec.decode(bytes) as { source: ArrayBufferView } & ArrayBufferView
        const { buffer } = decoded.source ?? decoded
        assert.notEqual(buffer, bytes.buffer)
        assert.equal(buffer.byteLength, source.byteLength)
      }
    }
  })
})

class Point {
  x = 1
}
class Subarray extends Array<number> {}

/** A value that contains itself. */
function cycle(): unknown {
  const value: { self?: unknown } = {}
  value.self = [value]
  return value
}

function nested(depth: number): unknown {
  let value: unknown = 'core'
  for (let level = 0; level < depth; level++) value = level % 2 === 0 ? [value] : { in: value }
  return value
}

/** Values that must be refused, and their names in the message. */
const REFUSED: Record<string, [value: () => unknown, named: RegExp]> = {
  'a date': [() => new Date(0), /An instance of Date/],
  'a map': [() => new Map(), /An instance of Map/],
  'a set': [() => new Set(), /An instance of Set/],
  'a bigint': [() => 1n, /A bigint/],
  'a function': [() => () => {}, /A function/],
  'a symbol': [() => Symbol('s'), /A symbol/],
  'a class instance': [() => new Point(), /An instance of Point/],
  'an error': [() => new TypeError('x'), /An instance of TypeError/],
  'a promise': [() => Promise.resolve(), /An instance of Promise/],
  'a regular expression': [() => /x/, /An instance of RegExp/],
  'a boxed number': [() => new Number(1), /An instance of Number/],
  'shared memory': [() => new SharedArrayBuffer(1), /An instance of SharedArrayBuffer/],
  'a subclass of Array': [() => Subarray.of(1), /An instance of Subarray/],
  'a weak map': [() => new WeakMap(), /An instance of WeakMap/],
  'a date of another realm': [() => runInNewContext('new Date(0)'), /An instance of Date/],
  'a key that is a symbol': [() => ({ [Symbol('s')]: 1 }), /An object with a symbol as key/],
  'an object with a prototype of its own': [() => Object.create({ inherited: 1 }), /An instance of/],
  'its own toJSON': [() => ({ toJSON: () => 'other' }), /A function at \S*\.toJSON/],
}

describe('codec - refuses', () => {
  for (const [title, [value, named]] of Object.entries(REFUSED)) {
    test(`codec - ${title} is refused, and the path to it named`, () => {
      assert.throws(() => there(value()), { name: 'CodecError', code: 'E_CODEC', message: named })
      const message = /at \$\.list\[1\]\["odd name"\]/
      assert.throws(() => there({ list: [0, { 'odd name': value() }] }), { name: 'CodecError', message })
    })
  }

  test('codec - a cycle is refused, and the path to it named', () => {
    assert.throws(() => there(cycle()), { code: 'E_CODEC', message: /A cycle at \$\.self\[0\]/ })
    const shared = { a: 1 }
    assert.deepStrictEqual(back([shared, shared]), [shared, shared])
  })

  test('codec - nesting is encoded to 1000 levels and refused beyond, with a path of bounded length', () => {
    assert.deepStrictEqual(back(nested(1000)), nested(1000))
    for (const depth of [1001, 200_000]) {
      assert.throws(
        () => there(nested(depth)),
        (error: Error) => {
          assert.ok(error instanceof CodecError, 'error instanceof CodecError')
          assert.match(error.message, /Nesting deeper than 1000 at \$/)
          assert.ok(error.message.length < 300, error.message)
          return true
        },
      )
    }
  })

  test('codec - an array with fields of its own is refused: JSON would drop them', () => {
    assert.throws(() => there('abc'.match(/b/)), { code: 'E_CODEC' })
  })

  test('codec - an array with a toJSON of its own is refused: it would be called', () => {
    const called: string[] = []
    const toJSON = () => called.push('toJSON')
    assert.throws(() => there(Object.assign([1, 2], { toJSON })), { code: 'E_CODEC' })
    assert.deepEqual(called, [])
  })

  test('codec - an instance of a subclass of a binary kind, or of null, is refused', () => {
    class Bytes extends Uint8Array {}
    assert.throws(() => there([new Bytes(2)]), { code: 'E_CODEC', message: /Bytes at \$\[0\]/ })
    const Bare = Object.assign(() => {}, {
      prototype: Object.create(null, { constructor: { value: Point } }),
    })
    assert.throws(() => there(Object.create(Bare.prototype)), { code: 'E_CODEC' })
  })

  test('codec - a hole of an array comes back as a hole, or is refused', () => {
    // biome-ignore lint/suspicious/noSparseArray: the test needs one
    const sparse = [1, , 3]
    try {
      assert.deepStrictEqual(back(sparse), sparse)
    } catch (error) {
      assert.ok(error instanceof CodecError, 'a hole became undefined')
    }
  })

  test('codec - of any value at all: it comes back equal, or a CodecError', () => {
    const anything = fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withBoxedValues: true,
      withNullPrototype: false,
    })
    fc.assert(
      fc.property(anything, (value) => {
        let bytes: Buffer
        try {
          bytes = there(value)
        } catch (error) {
          assert.ok(error instanceof CodecError, 'error instanceof CodecError')
          return
        }
        assert.deepStrictEqual(jsonCodec.decode(bytes), value)
      }),
      { numRuns: 1000 },
    )
  })
})

/** Decodes any bytes: returns data, or throws a CodecError. */
function survives(bytes: Buffer): unknown {
  try {
    return jsonCodec.decode(bytes)
  } catch (error) {
    assert.ok(error instanceof CodecError, String(error))
    return undefined
  }
}

describe('codec - hostile bytes', () => {
  test('codec - random bytes decode to data or a CodecError', () => {
    const forms = fc.constantFrom('', 'j', 'x', 't', 'tb', 'td', 'tq', 'tv')
    fc.assert(
      fc.property(forms, fc.uint8Array({ maxLength: 40 }), (form, bytes) => {
        survives(Buffer.concat([Buffer.from(form), bytes]))
      }),
      { numRuns: 3000 },
    )
  })

  test('codec - JSON that nobody encoded decodes to data or a CodecError', () => {
    const escapes = fc.constantFrom('undefined', '-0', 'NaN', 'b', 'nothing', '', null, true, 1e300)
    const json = fc.letrec<{ any: unknown }>((tie) => ({
      any: fc.oneof(
        { depthSize: 'small' },
        escapes,
        fc.array(tie('any'), { maxLength: 3 }),
        fc.record({ $: tie('any') }),
        fc.record({ $: tie('any'), other: tie('any') }),
        tie('any').map(
          (value) => JSON.parse(`{"__proto__":${JSON.stringify(value)},"toString":1}`) as unknown,
        ),
      ),
    })).any
    fc.assert(
      fc.property(json, (value) => {
        survives(Buffer.from(`x${JSON.stringify(value)}`))
        survives(Buffer.from(`j${JSON.stringify(value)}`))
      }),
      { numRuns: 2000 },
    )
    assert.equal('toString' in Object.prototype && typeof Object.prototype.toString, 'function')
  })

  test('codec - depth 200,000, 1e400 and cut bytes end in data or a CodecError', () => {
    const deep = 200_000
    for (const form of ['j', 'x']) {
      survives(Buffer.from(form + '['.repeat(deep) + ']'.repeat(deep)))
      survives(Buffer.from(`${form}${'{"$":'.repeat(deep)}1${'}'.repeat(deep)}`))
      survives(Buffer.from(form + '['.repeat(deep)))
      survives(Buffer.from(`${form}[1e400,-1e400,1e-400]`))
    }
    const whole = there({ a: [NaN, Buffer.from('abc')], b: 'text' })
    for (let end = 0; end < whole.length; end++) survives(whole.subarray(0, end))
  })

  test('codec - bytes of a typed array that are no multiple of its elements are a CodecError', () => {
    for (const letter of ['2', 's', '4', 'l', 'f', 'd', '8', 'q']) {
      assert.throws(() => jsonCodec.decode(Buffer.from(`t${letter}abc`)), { code: 'E_CODEC' })
    }
    assert.throws(() => jsonCodec.decode(Buffer.from('t?abc')), { code: 'E_CODEC' })
  })

  test('codec - a __proto__ in hostile bytes is a field, and pollutes nothing', () => {
    for (const form of ['j', 'x']) {
      const found = jsonCodec.decode(Buffer.from(`${form}{"__proto__":{"polluted":1},"a":2}`)) as object
      assert.deepEqual(Object.keys(found), ['__proto__', 'a'])
      assert.equal('polluted' in found, false)
    }
    assert.equal('polluted' in {}, false)
  })

  test('codec - nothing in the bytes runs or makes an instance of a class', () => {
    const kinds = [Object.prototype, Array.prototype]
    const found = survives(
      Buffer.from('x{"a":{"$":["b","AA=="]},"toJSON":{"$":{"then":"x"}},"constructor":1}'),
    )
    const { a, ...others } = found as Record<string, object>
    assert.ok(Buffer.isBuffer(a), 'Buffer.isBuffer(a)')
    assert.ok(
      kinds.includes(Object.getPrototypeOf(others['toJSON'])),
      'kinds.includes(Object.getPrototypeOf(others["toJSON"]))',
    )
  })
})
