import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkWellFormedName, isPrintableName, isWellFormedName, MAX_NAME } from '../../src/kernel/names.ts'

test('names - printable: well-formed text without control characters', () => {
  for (const name of [
    'a',
    ' ',
    'müll',
    '🙂',
    'x'.repeat(MAX_NAME),
    '🙂'.repeat(MAX_NAME / 2),
    '.',
    '..',
    '\u2028',
  ])
    assert.ok(isPrintableName(name), name)
  const wrong = ['', 'x'.repeat(MAX_NAME + 1), `${'🙂'.repeat(MAX_NAME / 2)}x`, '\ud800', 'a\udc00b']
  for (const name of [...wrong, 'a\nb', '\0', '\x7f', '\x85', '\x9f', undefined, null, 7, ['a']])
    assert.ok(!isPrintableName(name), JSON.stringify(name))
})

test('names - well-formed: control characters are allowed, lone surrogates are not', () => {
  for (const name of ['a', ' ', '🙂', 'a\nb', '\0', '\x7f', 'x'.repeat(MAX_NAME)]) {
    assert.ok(isWellFormedName(name), JSON.stringify(name))
    checkWellFormedName('name', name)
  }
  for (const name of ['', 'x'.repeat(MAX_NAME + 1), '\ud800', 'a\udc00b', undefined, null, 7, ['a']]) {
    assert.ok(!isWellFormedName(name), JSON.stringify(name))
    const message = /^Expected `name` to be well-formed text of 1 to 256 characters, got /
    assert.throws(() => checkWellFormedName('name', name), { name: 'TypeError', message })
  }
})
