import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'

const require = createRequire(import.meta.url)
const { exports } = require('soloflight/package.json')
const SUBPATHS = Object.keys(exports).filter((subpath) => subpath !== './package.json')

for (const subpath of SUBPATHS) {
  const name = `soloflight${subpath.slice(1)}`

  test(`${name} - \`require\` and \`import\` give the same module`, async () => {
    const imported = await import(name)
    assert.ok(Object.keys(imported).length > 0)
    assert.deepEqual({ ...require(name) }, { ...imported })
  })

  test(`${name} - the CommonJS build has the same names`, async () => {
    const root = require.resolve('soloflight/package.json').replace(/package\.json$/, '')
    const built = require(root + exports[subpath].require.default)
    assert.deepEqual(Object.keys(built).sort(), Object.keys(await import(name)).sort())
    assert.notEqual(Object.values(built)[0], Object.values(await import(name))[0])
  })
}
