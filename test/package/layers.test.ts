// The structure of the sources: imports point down, go through faces, and make no cycle, type-only imports included;
// files and folders stay small enough to be read. Each rule is shown to bite by planting what it forbids.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseSync } from 'oxc-parser'

const SOURCES = fileURLToPath(new URL('../../src', import.meta.url))

/** Each layer, and the layers that it may import. A layer that is not listed yet is an error. */
const BELOW: Record<string, readonly string[]> = {
  secrets: [],
  errors: ['secrets'],
  kernel: ['secrets', 'errors'],
  locker: ['secrets', 'errors', 'kernel'],
  worker: ['secrets', 'errors', 'kernel'],
  memoize: ['secrets', 'errors', 'kernel', 'locker'],
  queue: ['secrets', 'errors', 'kernel', 'locker'],
  services: ['secrets', 'errors', 'kernel', 'locker'],
  bus: ['secrets', 'errors', 'kernel', 'locker', 'services'],
  gateway: ['secrets', 'errors', 'kernel', 'locker', 'queue', 'services', 'bus'],
  // In browsers: only types.
  dashboard: ['gateway'],
  cli: ['secrets', 'errors', 'kernel', 'locker', 'queue', 'services', 'bus', 'gateway'],
  index: ['secrets', 'errors', 'kernel', 'locker', 'queue', 'services', 'bus'],
}

/** What other layers may import of a layer: its public names, and what only this library uses. The kernel is open. */
const FACES =
  /^(secrets|errors|kernel\/.+|\w+\/(index|internal)|gateway\/node|gateway\/ws\/index|gateway\/overview\/overview)\.ts$/

/** Longest file, in lines. The specifications of the records are whole on purpose. */
const MAX_LINES = 350
const SPECIFICATIONS = [
  'locker/store/record.ts',
  'queue/store/model/queue-model.ts',
  'bus/store/queue-record.ts',
]
const MAX_FILES = 15

/** What does not hold yet: these lists only become shorter. */
const INNER_YET: string[] = []
const CYCLES_YET: string[][] = []
const LARGE_YET: string[] = []

type Sources = Map<string, string>

/** Paths below `src`, with the text of each. */
async function read(): Promise<Sources> {
  const names = (await readdir(SOURCES, { recursive: true })).filter((name) => /\.tsx?$/.test(name)).sort()
  const texts = await Promise.all(names.map((name) => readFile(join(SOURCES, name), 'utf8')))
  return new Map(names.map((name, index) => [name, texts[index] ?? '']))
}

/** By file and text: each planted mistake changes one file of all. */
const known = new Map<string, string[]>()

/** The files that a file imports or exports from, whether types or values. */
function importsOf(file: string, text: string): string[] {
  const key = `${file}\n${text}`
  const imports = known.get(key) ?? parsedImports(file, text)
  known.set(key, imports)
  return imports
}

function parsedImports(file: string, text: string): string[] {
  const { module } = parseSync(file, text)
  const specifiers = [
    ...module.staticImports.map(({ moduleRequest }) => moduleRequest.value),
    ...module.staticExports.flatMap(({ entries }) =>
      entries.map((entry) => entry.moduleRequest?.value ?? ''),
    ),
    ...module.dynamicImports.map(({ moduleRequest: { start, end } }) => text.slice(start + 1, end - 1)),
  ]
  const inside = specifiers.filter((specifier) => specifier.startsWith('.'))
  return [...new Set(inside.map((specifier) => join(dirname(file), specifier)))]
}

const layerOf = (file: string): string => file.split('/')[0]?.replace(/\.ts$/, '') ?? ''

/** Imports of a layer above, or of another layer's inner file. */
function wrongImports(sources: Sources): string[] {
  const wrong: string[] = []
  for (const [file, text] of sources) {
    const layer = layerOf(file)
    const below = BELOW[layer] ?? assert.fail(`${file} is in no known layer`)
    for (const target of importsOf(file, text)) {
      if (layerOf(target) === layer) continue
      if (!below.includes(layerOf(target))) wrong.push(`${file} imports ${target}, which stands above it`)
      else if (!FACES.test(target)) wrong.push(`${file} imports ${target}, an inner file`)
    }
  }
  return wrong
}

/** The cycles of imports, each as the files on it. Tarjan, "Depth-first search and linear graph algorithms", 1972. */
function cycles(sources: Sources): string[][] {
  const found: string[][] = []
  const order = new Map<string, { index: number; low: number; onStack: boolean }>()
  const stack: string[] = []
  const visit = (file: string) => {
    const node = { index: order.size, low: order.size, onStack: true }
    order.set(file, node)
    stack.push(file)
    for (const target of importsOf(file, sources.get(file) ?? '')) {
      if (!sources.has(target)) continue
      const other = order.get(target)
      if (!other) node.low = Math.min(node.low, visit(target).low)
      else if (other.onStack) node.low = Math.min(node.low, other.index)
    }
    if (node.low === node.index) {
      const cycle = stack.splice(stack.indexOf(file))
      for (const member of cycle) (order.get(member) ?? assert.fail()).onStack = false
      if (cycle.length > 1 || importsOf(file, sources.get(file) ?? '').includes(file))
        found.push(cycle.sort())
    }
    return node
  }
  for (const file of sources.keys()) if (!order.has(file)) visit(file)
  return found
}

/** Files that are too long, and folders that hold too many. */
function tooLarge(sources: Sources): string[] {
  const wrong: string[] = []
  const folders = new Map<string, number>()
  for (const [file, text] of sources) {
    const lines = text.split('\n').length - 1
    if (lines > MAX_LINES && !SPECIFICATIONS.includes(file)) wrong.push(`${file} has ${lines} lines`)
    folders.set(dirname(file), (folders.get(dirname(file)) ?? 0) + 1)
  }
  for (const [folder, files] of folders) if (files > MAX_FILES) wrong.push(`${folder} has ${files} files`)
  return wrong
}

test('layers - imports point down, and into other layers only through their faces', async () => {
  assert.deepEqual(wrongImports(await read()), INNER_YET)
})

test('layers - there is no cycle of imports, type-only imports included', async () => {
  assert.deepEqual(cycles(await read()), CYCLES_YET)
})

test('layers - files and folders are small enough to be read', async () => {
  assert.deepEqual(tooLarge(await read()), LARGE_YET)
})

/** The sources with lines added to the beginning of files. */
async function planted(lines: Record<string, string>): Promise<Sources> {
  const sources = await read()
  for (const [file, line] of Object.entries(lines)) sources.set(file, `${line}\n${sources.get(file) ?? ''}`)
  return sources
}

for (const [file, line] of [
  ['errors.ts', "import './kernel/keys.ts'"],
  ['kernel/keys.ts', "import type { Locker } from '../locker/index.ts'"],
  ['kernel/redis/call.ts', "export { Locker } from '../../index.ts'"],
  ['locker/lease.ts', "import * as memoize from '../memoize/index.ts'"],
  ['locker/flight/flight.ts', "import '../../queue/index.ts'"],
  ['memoize/node.ts', "export * from '../queue/index.ts'"],
  ['queue/job.ts', "import '../memoize/index.ts'"],
  ['queue/job.ts', "const later = () => import('../memoize/index.ts')"],
  ['queue/job.ts', "import type { Flight } from '../locker/flight/flight.ts'"],
  ['services/remote.ts', "import '../queue/index.ts'"],
  ['queue/job.ts', "import type { Services } from '../services/index.ts'"],
  ['services/calling/calls.ts', "import { Locker } from '../../locker/locker.ts'"],
  ['queue/job.ts', "import type { Gateway } from '../gateway/index.ts'"],
  ['index.ts', "export { createGateway } from './gateway/index.ts'"],
  ['gateway/gateway.ts', "import { Attempt } from '../queue/working/attempt.ts'"],
  ['worker/take.ts', "import type { TakenJob } from '../queue/index.ts'"],
  ['worker/take.ts', "import { Problem } from '../gateway/problem.ts'"],
  ['gateway/gateway.ts', "import { HttpWorker } from '../worker/index.ts'"],
  ['memoize/policy/key.ts', "import { Locker } from '../../locker/locker.ts'"],
  ['index.ts', "export { run } from './cli/program.ts'"],
  ['kernel/options.ts', "import { UsageError } from '../cli/failure.ts'"],
  ['cli/serve.ts', "import { RedisQueue } from '../queue/queue.ts'"],
] as const) {
  test(`layers - ${file} may not have: ${line}`, async () => {
    const before = wrongImports(await read())
    assert.equal(wrongImports(await planted({ [file]: line })).length, before.length + 1)
  })
}

test('layers - a layer that nobody has placed is told of', async () => {
  await assert.rejects(async () => wrongImports(await planted({ 'news/index.ts': '' })), /no known layer/)
})

test('layers - a planted cycle is found, however long it is, and of types alone', async () => {
  const before = cycles(await read()).length
  const chain = {
    'locker/one.ts': "import type { Two } from './two.ts'",
    'locker/two.ts': "export type { Three } from './three.ts'",
    'locker/three.ts': "import type { One } from './one.ts'",
  }
  assert.equal(cycles(await planted(chain)).length, before + 1)
  assert.equal(cycles(await planted({ ...chain, 'locker/three.ts': '' })).length, before)
})

test('layers - a long file and a full folder are found', async () => {
  const before = tooLarge(await read()).length
  assert.equal(tooLarge(await planted({ 'locker/long.ts': '\n'.repeat(MAX_LINES) })).length, before + 1)
  const many = Array.from({ length: MAX_FILES + 1 }, (_, index) => [`queue/many/${index}.ts`, ''])
  assert.equal(tooLarge(await planted(Object.fromEntries(many))).length, before + 1)
})
