// One term for one thing: private words that once stood in the sources, and the field's words that replaced them.
// docs/glossary.md has the words that are ours.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { test } from 'node:test'

const ROOT = new URL('../../', import.meta.url)

/** Words as they stand in identifiers (camelCase is taken apart) and in prose, and what to say instead. */
const INSTEAD: Record<string, string> = {
  askanew: 'reclaim',
  deaf: 'subscription lost',
  deafen: 'stop listening',
  deserted: 'has no waiters',
  doomed: 'invalidated',
  doubted: 'needs validation',
  forsake: 'discard',
  forsaken: 'orphan',
  latecomer: 'joined after validation',
  latecomers: 'joined after validation',
  linger: 'retention of the outcome',
  outdate: 'invalidate',
  parcel: 'batch',
  reveal: 'map the result',
  stubborn: 'rejects bypass',
  surroundings: 'context',
  unsaid: 'pending progress',
  unserved: 'saturated',
  vouch: 'validate',
  vouched: 'validated',
  widened: 'merged',
}

/** Phrases of prose. */
const PHRASES: [RegExp, string][] = [
  [/\bwhat is over\b/i, 'a stale value'],
  [/\bnobody waits for anybody\b/i, 'bypass'],
  [/\bcontent with what\b/i, 'accepts stale'],
  [/\bgo(es)? alone\b/i, 'bypass'],
  [/(\*|\/\/) Who (?!may write)/, 'name the subject'],
]

/** The words of some text, with the words of identifiers apart. */
function wordsOf(text: string): Set<string> {
  const parts = text.replace(/([a-z\d])([A-Z])/g, '$1 $2').toLowerCase()
  return new Set(parts.match(/[a-z]+/g))
}

function privateWords(text: string): string[] {
  const words = wordsOf(text)
  const found = Object.keys(INSTEAD).filter((word) => words.has(word))
  const phrases = PHRASES.filter(([phrase]) => phrase.test(text))
  return [
    ...found.map((word) => `${word}: say ${INSTEAD[word]}`),
    ...phrases.map(([phrase, instead]) => `${phrase}: ${instead}`),
  ]
}

async function filesBelow(folder: string, ending: RegExp): Promise<string[]> {
  const names = await readdir(new URL(folder, ROOT), { recursive: true })
  return names
    .filter((name) => ending.test(name) && !/node_modules|reference\//.test(name))
    .map((name) => folder + name)
}

test('words - sources and documents say things in the words of the field', async () => {
  const files = [
    ...(await filesBelow('src/', /\.ts$/)),
    ...(await filesBelow('docs/', /\.md$/)),
    ...(await filesBelow('examples/', /\.(ts|md)$/)),
    'README.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
  ]
  const found: string[] = []
  for (const file of files) {
    const text = await readFile(new URL(file, ROOT), 'utf8')
    found.push(...privateWords(text).map((word) => `${file}: ${word}`))
  }
  assert.deepEqual(found, [])
})

test('words - a private word is found in an identifier, a comment and a sentence', () => {
  assert.equal(privateWords('const isDoomed = 1').length, 1)
  assert.equal(privateWords('// the linger of it').length, 1)
  assert.equal(privateWords('serves what is over').length, 1)
  assert.deepEqual(privateWords('const invalidated = 1 // a stale value'), [])
})
