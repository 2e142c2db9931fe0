import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { brotliCompress, constants } from 'node:zlib'
import { build } from 'esbuild'
import type { BuiltAsset } from '../../src/gateway/dashboard/built.ts'

const SOURCES = fileURLToPath(new URL('../../src/dashboard/', import.meta.url))
const PAGE = 'index.html'

/** Browsers of the last three years. */
const TARGET = ['chrome116', 'firefox115', 'safari16.4']

/** Bundles the dashboard from its sources, and compresses it. */
export async function bundleDashboard(): Promise<readonly BuiltAsset[]> {
  const files: [name: string, type: string, content: Uint8Array][] = [
    ['main.js', 'text/javascript; charset=utf-8', await bundled('main.tsx')],
    ['main.css', 'text/css; charset=utf-8', await bundled('style/main.css')],
    ['icon.svg', 'image/svg+xml', await readFile(`${SOURCES}icon.svg`)],
  ]
  let page = await readFile(SOURCES + PAGE, 'utf8')
  const assets: BuiltAsset[] = []
  for (const [file, type, content] of files) {
    const digest = createHash('sha256').update(content).digest('hex').slice(0, 12)
    const name = file.replace('.', `-${digest}.`)
    if (!page.includes(`"assets/${file}"`)) throw new Error(`${PAGE} does not name ${file}`)
    page = page.replace(`"assets/${file}"`, `"assets/${name}"`)
    assets.push({ name, type, content: await compressed(content) })
  }
  const content = await compressed(Buffer.from(page))
  return [...assets, { name: PAGE, type: 'text/html; charset=utf-8', content }]
}

async function bundled(entry: string): Promise<Uint8Array> {
  const { outputFiles } = await build({
    entryPoints: [SOURCES + entry],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    target: TARGET,
    jsx: 'automatic',
    jsxImportSource: 'preact',
    legalComments: 'none',
    logLevel: 'silent',
  })
  const [output] = outputFiles
  if (!output) throw new Error(`Nothing was made of ${entry}`)
  return output.contents
}

async function compressed(content: Uint8Array): Promise<string> {
  const params = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY }
  const bytes = await promisify(brotliCompress)(content, { params })
  return bytes.toString('base64')
}
