// Runs the programs of `smoke` with the packed package on Node 22 and 24, Bun and Deno, and the package's own tests on
// Node 22 and 24: npm run test:runtimes [-- test/locker/sharing.test.ts …]

import { readdir } from 'node:fs/promises'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compileAll } from '../../support/compiled.ts'
import { COMPILED, outputOf, ROOT } from '../../support/compiled-output.ts'
import { installed, pack, succeeds } from '../../support/packed.ts'
import { setup } from '../../support/setup.ts'

const HERE = fileURLToPath(new URL('.', import.meta.url))
/** Milliseconds. A program of `smoke` is over in a few seconds, and ends by itself. */
const TIMEOUT = 60_000

const NODES = { 'Node 22': ['node22/bin/node'], 'Node 24': ['node24/bin/node'] }
const RUNTIMES = {
  ...NODES,
  Bun: ['@oven/bun-linux-x64/bin/bun'],
  Deno: ['@deno/linux-x64-glibc/deno', 'run', '--allow-all'],
}

const failed: string[] = []

/** Runs a runtime with more arguments and notes when it fails. */
async function check(
  what: string,
  [binary = '', ...args]: string[],
  { cwd, env = {}, timeout = 0 }: { cwd: string; env?: Record<string, string>; timeout?: number },
): Promise<void> {
  const path = join(HERE, 'node_modules', binary)
  // What starts a `node` by its name gets the same one.
  const PATH = `${dirname(path)}${delimiter}${process.env['PATH']}`
  const began = performance.now()
  const ok = await succeeds(path, args, { cwd, env: { ...env, PATH }, timeout })
  console.log(`${ok ? 'passed' : 'FAILED'}: ${what}, ${Math.round(performance.now() - began)} ms`)
  if (!ok) failed.push(what)
}

{
  await using t = await setup({ port: 'free' })
  const cwd = await installed(join(HERE, 'smoke'), await pack())
  const programs = (await readdir(join(HERE, 'smoke'))).filter((name) => name.endsWith('.js'))
  for (const [name, command] of Object.entries(RUNTIMES)) {
    for (const program of programs) {
      const options = { cwd, env: { REDIS_URL: t.url }, timeout: TIMEOUT }
      await check(`${program} on ${name}`, [...command, program], options)
    }
  }
}

const asked = process.argv.slice(2)
const all = (await readdir(join(ROOT, 'test'), { recursive: true })).filter((name) =>
  name.endsWith('.test.ts'),
)
const files =
  asked.length > 0 ? asked.map((file) => resolve(file)) : all.map((name) => join(ROOT, 'test', name))
const supporting = await readdir(join(ROOT, 'test/support'))
const children = supporting.filter((name) => name.endsWith('-child.ts'))
const folder = await compileAll([
  ...(files as [string, ...string[]]),
  ...children.map((name) => join(ROOT, 'test/support', name)),
])
const outputs = files.map((file) => outputOf(file, folder))
const options = ['--enable-source-maps', '--test', '--test-reporter=dot', '--test-timeout=180000']
for (const [name, command] of Object.entries(NODES)) {
  const args = [...command, ...options, '--test-concurrency=2', ...outputs]
  await check(`${files.length} test files on ${name}`, args, { cwd: ROOT, env: { [COMPILED]: folder } })
}

if (failed.length > 0) throw new Error(`These failed: ${failed.join('; ')}`)
