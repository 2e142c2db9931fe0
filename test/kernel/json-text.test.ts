// JSON that is kept byte for byte.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CodecError, JsonText, jsonCodec, jsonTextCodec } from '../../src/index.ts'

const ODD = ' {"a":1.0,\n"b":9007199254740993,"a":2, "\\ud800":"é😀"}\t'
const DEPTH = 200_000

test('JsonText - is written by jsonCodec and read by jsonTextCodec byte for byte', () => {
  const bytes = jsonCodec.encode(JsonText.parse(ODD))
  assert.equal(bytes.toString(), `j${ODD}`)
  assert.deepEqual(jsonTextCodec.encode(JsonText.parse(ODD)), bytes)
  assert.equal((jsonTextCodec.decode(bytes) as JsonText).text, ODD)
  assert.deepEqual(jsonCodec.decode(bytes), JSON.parse(ODD))
  assert.deepEqual(JsonText.parse(ODD).value, JSON.parse(ODD))
})

test('jsonTextCodec - writes an array of JsonText by the texts of its elements, and any other array as jsonCodec does', () => {
  const list = [ODD, '1.0', '{"$":"undefined"}'].map((text) => JsonText.parse(text))
  assert.equal(String(jsonTextCodec.encode(list)), `j[${ODD},1.0,{"$":"undefined"}]`)
  for (const other of [[], [1, undefined], [[list[1]]], [list[1], 1]]) {
    const [one, another] = [jsonTextCodec, jsonCodec].map((codec) => attempt(() => codec.encode(other)))
    assert.deepEqual(one, another)
  }
})

/** What a call returns, or the name of what it throws. */
function attempt(run: () => unknown): unknown {
  try {
    return run()
  } catch (error) {
    return (error as Error).name
  }
}

test('JsonText - refuses what is not JSON', () => {
  for (const text of ['', '{', "{'a':1}", '[1,]', 'NaN', '\ufeff1', '"\n"', '1 2', '"\ud800"'])
    assert.throws(() => JsonText.parse(text), CodecError, JSON.stringify(text))
  for (const text of [undefined, null, 1, Buffer.from('1'), { toString: () => '1' }])
    assert.throws(() => JsonText.parse(text as string), TypeError)
  assert.throws(() => jsonCodec.encode({ part: JsonText.parse('1') }), /JsonText at \$.part/)
})

test('JsonText - of any depth is checked, written and read', () => {
  for (const [open, close] of [
    ['[', ']'],
    ['{"a":', '}'],
  ] as const) {
    const text = `${open.repeat(DEPTH)}1${close.repeat(DEPTH)}`
    const bytes = jsonCodec.encode(JsonText.parse(text))
    assert.equal((jsonTextCodec.decode(bytes) as JsonText).text, text)
    assert.throws(() => JsonText.parse(text.slice(0, -1)), CodecError)
  }
})

test('JsonText - of a value that is not plain JSON is what JSON.stringify makes of it', () => {
  const textOf = (value: unknown) => (jsonTextCodec.decode(jsonCodec.encode(value)) as JsonText).text
  assert.equal(textOf(undefined), 'null')
  assert.equal(textOf(Number.NaN), 'null')
  assert.equal(textOf({ a: undefined, b: -0, c: { $: 1 } }), '{"b":0,"c":{"$":1}}')
  assert.equal(textOf(Buffer.from('a')), '{"type":"Buffer","data":[97]}')
})

test('JsonText - bytes that no codec wrote are refused', () => {
  for (const stored of ['', 'j', 'j{', 'z1', 'x{', `x${'['.repeat(DEPTH)}${']'.repeat(DEPTH)}`])
    assert.throws(() => jsonTextCodec.decode(Buffer.from(stored)), CodecError, stored.slice(0, 10))
})
