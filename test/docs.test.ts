// The pages of docs: every piece of TypeScript compiles, every link leads somewhere, and recipes keep what they promise.

import assert from 'node:assert/strict'
import { access, readdir, readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { compile } from './support/type-check.ts'

const FOLDER = new URL('../docs/', import.meta.url)

const names = (await readdir(FOLDER)).filter((name) => name.endsWith('.md'))

/** As it stands in `test`: the package is its sources, and what is declared may be left unused. */
function asSource(code: string): string {
  return code.replace(/'soloflight(\/[\w/]+)?'/g, (_, path?: string) => `'../src${path ?? '/index'}.ts'`)
}

describe('docs', () => {
  for (const name of names) {
    test(`${name} - its code compiles`, async () => {
      const text = await readFile(new URL(name, FOLDER), 'utf8')
      for (const [, code = ''] of text.matchAll(/```ts\n([\s\S]*?)```/g)) {
        const unused = /TS6133|TS6192|TS6196/
        const errors = (await compile(asSource(code))).filter((line) => !unused.test(line))
        assert.deepEqual(errors, [], code)
      }
    })

    test(`${name} - its links lead somewhere`, async () => {
      const text = await readFile(new URL(name, FOLDER), 'utf8')
      for (const [, link = ''] of text.matchAll(/\]\((?!https?:)([^)#]+)/g))
        await assert.doesNotReject(access(new URL(link, FOLDER)), link)
    })
  }
})
