// Compiles the tests and runs them: npm test [-- FILE.test.ts … OPTIONS of node]

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findRedisServer } from './support/binary.ts'
import { compileAll } from './support/compiled.ts'
import { COMPILED, outputOf } from './support/compiled-output.ts'
import { tie } from './support/lifeline.ts'

/** Files that run at once: many wait most of the time, for leases that end. */
const CONCURRENCY = Math.min(8, 2 * availableParallelism() + 1)
const HERE = fileURLToPath(new URL('.', import.meta.url))

/** The files below this folder whose names end so; what is installed here, and projects that tests install, are not ours. */
async function filesThatEnd(ending: string): Promise<string[]> {
  const entries = await readdir(HERE, { recursive: true })
  return entries
    .filter((name) => name.endsWith(ending) && !/node_modules|package.projects/.test(name))
    .sort()
    .map((name) => join(HERE, name))
}

// The test files find a server then, and do not wait for one to be installed.
await findRedisServer()
const args = process.argv.slice(2)
const isTest = (arg: string): boolean => arg.endsWith('.test.ts')
const named = args.filter(isTest).map((file) => resolve(file))
const [first, ...others] = named.length > 0 ? named : await filesThatEnd('.test.ts')
if (first === undefined) throw new Error('There are no tests')
const tests = [first, ...others] as const
const folder = await compileAll([...tests, ...(await filesThatEnd('-child.ts'))])

const runner = spawn(
  process.execPath,
  [
    '--enable-source-maps',
    '--test',
    `--test-concurrency=${CONCURRENCY}`,
    '--test-timeout=400000',
    ...args.filter((arg) => !isTest(arg)),
    ...tests.map((file) => outputOf(file, folder)),
  ],
  { stdio: 'inherit', env: { ...process.env, [COMPILED]: folder } },
)
tie(runner)
const [code] = await once(runner, 'exit')
process.exitCode = code ?? 1
