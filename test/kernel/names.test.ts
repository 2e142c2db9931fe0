import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isName, MAX_NAME } from '../../src/kernel/names.ts'

test('names - well-formed text without control characters', () => {
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
    assert.ok(isName(name), name)
  const wrong = ['', 'x'.repeat(MAX_NAME + 1), `${'🙂'.repeat(MAX_NAME / 2)}x`, '\ud800', 'a\udc00b']
  for (const name of [...wrong, 'a\nb', '\0', '\x7f', '\x85', '\x9f', undefined, null, 7, ['a']])
    assert.ok(!isName(name), JSON.stringify(name))
})
