import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Locker } from '../../src/index.ts'
import { jsonCodec } from '../../src/kernel/codec/codec.ts'
import { checkKey, checkPrefix, MAX_KEY_LENGTH, recordKey } from '../../src/kernel/keys.ts'
import { cacheName } from '../../src/locker/runtime.ts'

/** Any UTF-16, including lone surrogates. */
const units = fc
  .array(fc.oneof(fc.integer({ min: 0, max: 0xffff }), fc.integer({ min: 0xd800, max: 0xdfff })), {
    minLength: 1,
    maxLength: 8,
  })
  .map((codes) => String.fromCharCode(...codes))

/** Keys that look like record keys or like digests, and other keys that are easily confused. */
const imitation = fc.oneof(
  units.map((key) => recordKey('p', key)),
  units.map((key) => recordKey('p', key).slice('p:1:'.length)),
  units.map((key) => `h/${recordKey('p', key).split('/').at(-1)}`),
  fc.constantFrom('1:k/x', 'k/x', 'h/x', '/x', ':x', 'x', '1:h/x', 'p:1:k/x'),
)
const key = fc.oneof(
  { weight: 3, arbitrary: units },
  { weight: 3, arbitrary: fc.string({ minLength: 1, maxLength: 200 }) },
  { weight: 2, arbitrary: imitation },
  fc.string({ minLength: 1 }).map((inner) => `{${inner}}`),
  fc.string({ minLength: 1 }).map((line) => `${line}\r\n`),
  fc.string({ minLength: 1 }).map((text) => `${text}\0`),
  fc.string({ minLength: 127, maxLength: 130, unit: fc.constantFrom('a', 'b') }),
  fc.string({ minLength: 1, unit: 'grapheme' }),
)
const prefix = fc.stringMatching(/^[\w:.-]{1,12}$/)

/** The name of a key of a kind in the in-process cache. */
const name = (letter: string, text: string): string => cacheName({ letter, codec: jsonCodec }, text)

/** Pairs of similar keys that an encoding could confuse. */
function neighbours(key: string): string[] {
  return [
    key.normalize('NFC'),
    key.normalize('NFD'),
    key.replace(/[\ud800-\udfff]/g, '\ufffd'),
    key.toLowerCase(),
    key.trim(),
    `${key}\0`,
    `${key} `,
    `${key}\n`,
    `{${key}}`,
    Buffer.from(key).toString('latin1'),
    encodeURIComponent(key.replace(/[\ud800-\udfff]/g, '')),
  ].filter((other) => other.length > 0)
}

test('keys - no two different keys make the same record name', () => {
  fc.assert(
    fc.property(key, key, (one, other) => {
      for (const near of [other, ...neighbours(one)]) {
        if (near !== one) assert.notEqual(recordKey('p', near), recordKey('p', one))
      }
    }),
    { numRuns: 5000 },
  )
})

test('keys - keys of two prefixes never make the same record name', () => {
  fc.assert(
    fc.property(prefix, key, (begin, text) => {
      const longer = [`${begin}:1:k`, `${begin}:1:h`, `${begin}:1`, `${begin}:k`, `${begin}:`]
      const longerKeys = [text, `1:k/${text}`, `k/${text}`, `:${text}`, `:1:k/${text}`, `1:k:${text}`]
      for (const other of longer) {
        for (const hostile of longerKeys) assert.notEqual(recordKey(begin, hostile), recordKey(other, text))
      }
    }),
  )
})

test('keys - keys of two kinds never make the same record name, nor the same name in a cache', () => {
  const letter = fc.constantFrom('k', 's', 't', 'v', 'w')
  fc.assert(
    fc.property(key, key, letter, letter, (one, other, kind, another) => {
      fc.pre(kind !== another)
      for (const [a, b] of [
        [one, other],
        [one, one],
        [one, `${kind}${one}`],
        [one, `\0${kind}${one}`],
        [`\0${another}${one}`, one],
      ] as const) {
        assert.notEqual(recordKey('p', a, kind), recordKey('p', b, another))
        assert.notEqual(name(kind, a), name(another, b))
      }
    }),
    { numRuns: 2000 },
  )
})

test('keys - two keys of one kind never have the same name in a cache', () => {
  fc.assert(
    fc.property(key, fc.constantFrom('k', 's'), (text, kind) => {
      for (const other of [`${kind}${text}`, `\0${kind}${text}`, `\0${text}`])
        assert.notEqual(name(kind, text), name(kind, other))
    }),
  )
})

test('keys - a record name is short, printable ASCII, and of one cluster slot', () => {
  fc.assert(
    fc.property(key, prefix, (text, begin) => {
      assert.match(recordKey(begin, text), /^[\x21-\x7a|~]{1,200}$/)
      assert.doesNotMatch(recordKey(begin, text), /[{}\s]/)
    }),
    { numRuns: 2000 },
  )
})

test('keys - a key of 1 MiB works, and a longer one is refused', () => {
  const long = 'k'.repeat(MAX_KEY_LENGTH)
  checkKey(long)
  assert.ok(recordKey('p', long).length < 64, 'recordKey("p", long).length < 64')
  assert.notEqual(recordKey('p', long), recordKey('p', `${long.slice(1)}l`))
  assert.throws(() => checkKey(`${long}k`), /Expected `key` to have 1 to 1048576 characters, got 1048577/)
})

test('keys - short plain keys stay readable', () => {
  assert.equal(recordKey('soloflight', 'report:42'), 'soloflight:1:k/report:42')
  assert.equal(recordKey('p', 'a/b?c=d&e#f|g'), 'p:1:k/a/b?c=d&e#f|g')
  assert.match(recordKey('p', 'a b'), /^p:1:h\/[\w-]{43}$/)
})

test('keys - an invalid key is refused, and shown', async () => {
  await using locker = new Locker()
  const work = () => 1
  for (const bad of [undefined, null, 42, Symbol('s'), {}, ['a'], '']) {
    const refused = { name: 'TypeError', message: /^Expected `key` to / }
    await assert.rejects(locker.run(bad as string, work), refused)
    await assert.rejects(locker.request(bad as string), refused)
    await assert.rejects(locker.peek(bad as string), refused)
    await assert.rejects(locker.invalidate('good', bad as string), refused)
    await assert.rejects(locker.publish(bad as string, 1), refused)
  }
})

test('keys - bad prefixes are refused, and shown', () => {
  for (const bad of ['', 'a b', '{a}', 'a*', 'a\n', 'ü', 'a'.repeat(65), 'a\0', 42, null, ['a']]) {
    assert.throws(() => new Locker({ prefix: bad as string }), {
      name: 'TypeError',
      message: /^Expected `prefix` to be 1 to 64 of A-Z a-z 0-9 _ : \. -, got `/,
    })
  }
  for (const good of ['a', 'my-app:v2', 'A.b_c', 'x'.repeat(64)]) checkPrefix('prefix', good)
})
