// The pages of docs: every piece of TypeScript compiles, and every link leads somewhere.

import assert from 'node:assert/strict'
import { access, readdir, readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { compile } from '../support/type-check.ts'

const FOLDER = new URL('../../docs/', import.meta.url)

const names = (await readdir(FOLDER)).filter((name) => name.endsWith('.md'))

/** As it stands in `test`: the package is its sources, and what is declared may be left unused. */
function asSource(code: string): string {
  return code.replace(/'soloflight(\/[\w/]+)?'/g, (_, path?: string) => `'../../src${path ?? '/index'}.ts'`)
}

const pages = await Promise.all(
  names.map(async (name) => ({ name, text: await readFile(new URL(name, FOLDER), 'utf8') })),
)

describe('docs', () => {
  test('all code compiles', async () => {
    const pieces = pages.flatMap(({ name, text }) =>
      [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code = '']) => ({ name, code })),
    )
    assert.ok(pieces.length > 8)
    const said = await compile(pieces.map(({ code }) => asSource(code)))
    for (const [index, { name, code }] of pieces.entries()) {
      const errors = said[index]?.filter((line) => !/TS6133|TS6192|TS6196/.test(line))
      assert.deepEqual(errors, [], `${name}\n${code}`)
    }
  })

  for (const { name, text } of pages)
    test(`${name} - its links lead somewhere`, async () => {
      for (const [, link = ''] of text.matchAll(/\]\((?!https?:)([^)#]+)/g))
        await assert.doesNotReject(access(new URL(link, FOLDER)), link)
    })
})
