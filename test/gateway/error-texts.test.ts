// docs/errors.md lists every `error` that a gateway answers, with its status: those of the source, and no others.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ROOT } from '../support/packed.ts'

const SOURCE = join(ROOT, 'src/gateway')

/** Where a status and a text are those of another problem, or of a table that is read by itself. */
const COPIES = ['status, error', 'row.status, row.error']

/** The arguments of a call, from behind its bracket: their texts. */
function argumentsAt(source: string, start: number): string[] {
  const found: string[] = []
  let depth = 0
  let from = start
  for (let at = start; at < source.length; at++) {
    const character = source[at] ?? ''
    if ("'`".includes(character)) at = source.indexOf(character, at + 1)
    else if ('([{'.includes(character)) depth++
    else if (')]}'.includes(character) && depth-- === 0) return [...found, source.slice(from, at).trim()]
    else if (character === ',' && depth === 0) {
      found.push(source.slice(from, at).trim())
      from = at + 1
    }
  }
  return assert.fail('the call has no end')
}

function callsOf(source: string, name: string): string[][] {
  const pattern = new RegExp(`${name}\\(`, 'g')
  return [...source.matchAll(pattern)].map(({ index, 0: { length } }) => argumentsAt(source, index + length))
}

/** `404 no job`, for each problem that the gateway can answer. */
async function problemsInSource(): Promise<Set<string>> {
  const names = (await readdir(SOURCE, { recursive: true })).filter((name) => name.endsWith('.ts'))
  const sources = await Promise.all(names.map((name) => readFile(join(SOURCE, name), 'utf8')))
  const all = sources.join('\n')
  const found = new Set<string>()
  // What `nameInPath` reads, and what `Shares` bounds.
  const namesInPaths = callsOf(all, 'nameInPath').flatMap(
    ([, what = '']) => /^'(\w+)'$/.exec(what)?.[1] ?? [],
  )
  const shares = callsOf(all, 'new Shares').map(([, error = '']) => error.slice(1, -1))
  for (const [status = '', error = ''] of callsOf(all, 'new Problem')) {
    // In a ternary there are several.
    const texts = [...error.matchAll(/(?<!includes\()'([^']*[^', ])'/g)].map(([, text = '']) => text)
    if (COPIES.includes(`${status}, ${error}`)) continue
    if (/^`invalid \$\{what\} name`$/.test(error))
      texts.push(...namesInPaths.map((what) => `invalid ${what} name`))
    if (error === 'this.#error') texts.push(...shares)
    assert.ok(
      /^\d{3}$/.test(status) && texts.length > 0,
      `new Problem(${status}, ${error}) is not understood`,
    )
    for (const text of texts) found.add(`${status} ${text}`)
  }
  for (const [, status, error] of all.matchAll(/\{ status: (\d{3}), error: '([^']+)'/g))
    found.add(`${status} ${error}`)
  return found
}

test('error texts - docs/errors.md has a row for each problem of the gateway, and for no other', async () => {
  const text = await readFile(join(ROOT, 'docs/errors.md'), 'utf8')
  const [, section = ''] = /\n## Of the gateway\n(.*?)\n## /s.exec(text) ?? []
  const rows = [...section.matchAll(/^\| (\d{3}) \| `([^`]+)` \| (?=\S)/gm)]
  const listed = rows.map(([, status, error]) => `${status} ${error}`)
  assert.deepEqual(listed, listed.toSorted(), 'the rows are sorted')
  assert.deepEqual(listed, [...(await problemsInSource())].sort())
  assert.ok(listed.length > 60)
})
