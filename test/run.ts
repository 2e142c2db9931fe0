// Compiles the tests and runs them: npm test [-- FILE.test.ts … OPTIONS of node]

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findRedisServer } from './support/binary.ts'
import { compileAll } from './support/compiled.ts'
import { COMPILED, outputOf } from './support/compiled-output.ts'
import { tie } from './support/lifeline.ts'

/** Files that run at once: many wait most of the time, for leases that end. */
const CONCURRENCY = Math.min(8, 2 * availableParallelism() + 1)
const HERE = fileURLToPath(new URL('.', import.meta.url))

/** Files that take longest, the longest first: begun at the end, one of them would run alone. */
const LONGEST = [
  ...[
    'package/examples',
    'faults/bus-server',
    'faults/locker-size',
    'faults/queue-cluster',
    'faults/bus-replies',
  ],
  ...[
    'locker/outage',
    'faults/bus-processes',
    'queue/delivery',
    'memoize/cache-tests',
    'faults/liveness-bounds',
  ],
  ...['kernel/keep-alive', 'faults/locker-refusals', 'memoize/isolation', 'faults/services-processes'],
].map((name) => join(HERE, `${name}.test.ts`))

/** The files below this folder whose names end so; what is installed here, and projects that tests install, are not ours. */
async function filesThatEnd(ending: string): Promise<string[]> {
  const entries = await readdir(HERE, { recursive: true })
  return entries
    .filter((name) => name.endsWith(ending) && !/node_modules|package.projects/.test(name))
    .sort()
    .map((name) => join(HERE, name))
}

/** The longest come first, and the others as they were. */
function inOrder(files: readonly string[]): string[] {
  return [
    ...LONGEST.filter((file) => files.includes(file)),
    ...files.filter((file) => !LONGEST.includes(file)),
  ]
}

/** Modules that import the compiled tests. Node runs files in the order of their names, so that they are numbered. */
async function numbered(files: readonly string[], folder: string): Promise<string[]> {
  const place = join(folder, 'run')
  await mkdir(place)
  return await Promise.all(
    files.map(async (file, index) => {
      const name = relative(HERE, file)
        .replace(/\.ts$/, '')
        .replaceAll(/[^\w.]+/g, '-')
      const module = join(place, `${String(index).padStart(4, '0')}-${name}.mjs`)
      await writeFile(module, `import ${JSON.stringify(outputOf(file, folder))}\n`)
      return module
    }),
  )
}

// The test files find a server then, and do not wait for one to be installed.
await findRedisServer()
const args = process.argv.slice(2)
const isTest = (arg: string): boolean => arg.endsWith('.test.ts')
const named = args.filter(isTest).map((file) => resolve(file))
const all = await filesThatEnd('.test.ts')
const missing = LONGEST.find((file) => !all.includes(file))
if (missing !== undefined) throw new Error(`There is no ${missing}`)
const [first, ...others] = inOrder(named.length > 0 ? named : all)
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
    // Repeats at the end what has failed: of five thousand results, nobody finds it otherwise.
    '--test-reporter=spec',
    ...args.filter((arg) => !isTest(arg)),
    ...(await numbered(tests, folder)),
  ],
  { stdio: 'inherit', env: { ...process.env, [COMPILED]: folder } },
)
tie(runner)
const [code] = await once(runner, 'exit')
process.exitCode = code ?? 1
