// Puts the dashboard into the package: npm run build does it when the modules are compiled.

import { readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { bundleDashboard } from './dashboard/bundle.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** What the bundle contains, beside our own. */
const BUNDLED = ['preact', 'uplot']

const assets = await bundleDashboard()
const text = JSON.stringify(assets, undefined, 2)
const modules = {
  'dist/gateway/dashboard/built.js': `export const BUILT = ${text}\n`,
  'dist/cjs/gateway/dashboard/built.js': `'use strict'\nexports.BUILT = ${text}\n`,
}
for (const [file, module] of Object.entries(modules)) {
  await writeFile(ROOT + file, module)
  // It was that of the module that is replaced.
  await rm(`${ROOT}${file}.map`)
}
const licenses = BUNDLED.map(
  async (name) => `${name}\n\n${await readFile(`${ROOT}node_modules/${name}/LICENSE`, 'utf8')}`,
)
await writeFile(`${ROOT}dist/gateway/dashboard/LICENSES.txt`, (await Promise.all(licenses)).join('\n\n'))
const bytes = assets.reduce((sum, { content }) => sum + Buffer.from(content, 'base64').length, 0)
console.log(`dashboard: ${(bytes / 1024).toFixed(1)} KiB compressed`)
