// The linter proves that imports point down and make no cycle. That it really does is proved here, on a copy of the
// sources with one wrong import each.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))

interface Finding {
  rule: string
  message: string
  line: number
}

/** A copy of what the linter looks at. */
class Copy implements AsyncDisposable {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async make(): Promise<Copy> {
    const folder = await mkdtemp(join(tmpdir(), 'sf-'))
    for (const name of ['src', 'biome.json', 'package.json', 'tsconfig.json', '.gitignore']) {
      await cp(join(root, name), join(folder, name), { recursive: true })
    }
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
    return new Copy(folder)
  }

  /** Writes a file, below what is there already. */
  async add(path: string, text: string): Promise<void> {
    const file = join(this.#folder, path)
    await mkdir(dirname(file), { recursive: true })
    const before = await readFile(file, 'utf8').catch(() => '')
    await writeFile(file, `${text}\n${before}`)
  }

  /** What the linter says of a file. */
  async lint(path: string): Promise<Finding[]> {
    const args = ['lint', '--reporter=json', '--max-diagnostics=none', path]
    const options = { cwd: this.#folder, maxBuffer: 2 ** 26 }
    const { stdout } = await run(join(root, 'node_modules/.bin/biome'), args, options).catch(
      (error: { stdout: string }) => error,
    )
    const report = JSON.parse(stdout) as {
      diagnostics: {
        category: string
        severity: string
        message: unknown
        location: { start: { line: number } }
      }[]
    }
    return report.diagnostics
      .filter(({ severity }) => severity === 'error')
      .map(({ category, message, location }) => ({
        rule: category.split('/').at(-1) ?? '',
        message: JSON.stringify(message),
        line: location.start.line,
      }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true })
  }
}

/** A file of each layer, and imports that it must not have. */
const FORBIDDEN: Record<string, string[]> = {
  'src/errors.ts': ['./kernel/index.ts', './kernel/keys.ts', './locker/locker.ts'],
  'src/kernel/keys.ts': [
    '../locker/index.ts',
    '../locker/locker.ts',
    '../memoize/index.ts',
    '../queue/queue.ts',
    '../services/index.ts',
    '../bus/index.ts',
    '../gateway/index.ts',
    '../cli/index.ts',
    '../index.ts',
  ],
  'src/locker/slots.ts': [
    '../memoize/index.ts',
    '../queue/index.ts',
    '../services/index.ts',
    '../bus/index.ts',
    '../gateway/index.ts',
    '../cli/index.ts',
    '../index.ts',
  ],
  'src/locker/stream/tail.ts': ['../../memoize/index.ts', '../../queue/index.ts', '../../index.ts'],
  'src/memoize/http/key.ts': [
    '../../queue/index.ts',
    '../../services/index.ts',
    '../../bus/index.ts',
    '../../gateway/index.ts',
    '../../cli/index.ts',
    '../../index.ts',
  ],
  'src/queue/names.ts': [
    '../memoize/index.ts',
    '../services/index.ts',
    '../bus/index.ts',
    '../gateway/index.ts',
    '../cli/index.ts',
    '../index.ts',
  ],
}

for (const [file, imports] of Object.entries(FORBIDDEN)) {
  test(`layers - ${file} may not import what stands above it`, async () => {
    await using copy = await Copy.make()
    const restricted = async () =>
      (await copy.lint(file)).filter(({ rule }) => rule === 'noRestrictedImports').map(({ line }) => line)
    assert.deepEqual(await restricted(), [], 'nothing is wrong with it as it is')
    const forms = [
      (name: string, index: number) => `import * as wrong${index} from '${name}'`,
      (name: string, index: number) => `import type * as wrong${index} from '${name}'`,
      (name: string) => `export * from '${name}'`,
    ]
    const wrong = imports.map((name, index) => (forms[index % forms.length] ?? assert.fail())(name, index))
    await copy.add(file, wrong.join('\n'))
    const found = await restricted()
    const missed = imports.filter((_, index) => !found.includes(index + 1))
    assert.deepEqual([missed, found.length], [[], imports.length], 'each is an error of its own')
  })
}

test('layers - each may import what stands below it', async () => {
  await using copy = await Copy.make()
  await copy.add(
    'src/locker/allowed.ts',
    "import '../kernel/keys.ts'\nimport '../errors.ts'\nimport './slots.ts'",
  )
  await copy.add('src/kernel/allowed.ts', "import '../errors.ts'\nimport './keys.ts'")
  await copy.add('src/queue/allowed.ts', "import '../locker/index.ts'\nimport '../kernel/keys.ts'")
  await copy.add('src/memoize/allowed.ts', "import '../locker/index.ts'\nimport '../kernel/keys.ts'")
  assert.deepEqual(
    (await copy.lint('src')).filter(({ rule }) => /Import/.test(rule)),
    [],
  )
})

test('layers - a cycle of imports is an error, within a layer too, and however long it is', async () => {
  await using copy = await Copy.make()
  await copy.add('src/locker/one.ts', "import { two } from './two.ts'\nexport const one = () => two")
  await copy.add('src/locker/two.ts', "import { three } from './three.ts'\nexport const two = () => three")
  await copy.add('src/locker/three.ts', 'export const three = 3')
  const cycles = async () => (await copy.lint('src')).filter(({ rule }) => rule === 'noImportCycles').length
  assert.equal(await cycles(), 0, 'the sources have none')
  await copy.add('src/locker/three.ts', "import { one } from './one.ts'\nexport const again = () => one")
  assert.equal(await cycles(), 3)
})
