import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { temporaryFolder } from '../support/lifeline.ts'
import { setup } from '../support/setup.ts'

test('bundle - minified with its dependencies, errors keep their names, and a refused PING is an answer', async () => {
  await using t = await setup()
  await t.server.call('ACL', 'SETUSER', 'user', 'on', '>right', '~*', '&*', '+@all', '-ping')
  const outfile = join(await temporaryFolder(), 'bundle.mjs')
  await build({
    entryPoints: [fileURLToPath(new URL('../support/bundled.ts', import.meta.url))],
    outfile,
    bundle: true,
    minify: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    // What is CommonJS among the dependencies still asks for Node's modules by `require`.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  })
  const { stdout } = await promisify(execFile)(process.execPath, [outfile, '--redis', t.server.path])
  const { names, remote, late, lost } = JSON.parse(stdout) as {
    names: [string, string][]
    remote: string
    late: string
    lost: number
  }
  assert.ok(names.length >= 23)
  for (const [name, found] of names) assert.equal(found, name)
  assert.deepEqual([remote, late, lost], ['RemoteError', 'TimeoutError', 0])
})

test('bundle - a worker over HTTP needs neither Redis nor Hono', async () => {
  const { metafile } = await build({
    entryPoints: [fileURLToPath(new URL('../../src/worker/index.ts', import.meta.url))],
    write: false,
    metafile: true,
    bundle: true,
    platform: 'node',
    format: 'esm',
  })
  const packages = Object.keys(metafile.inputs).flatMap(
    (path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? [],
  )
  assert.deepEqual([...new Set(packages)], ['p-defer'])
})
