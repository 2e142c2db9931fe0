import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

/** What the compiler says of each of some sources that stand for files in a folder of `test`, by this package's own options. */
export async function compile(sources: readonly string[]): Promise<string[][]> {
  const folder = await mkdtemp(join(tmpdir(), 'sf-'))
  try {
    for (const name of ['src', 'node_modules', 'tsconfig.json', 'package.json'])
      await symlink(join(root, name), join(folder, name))
    const place = join(folder, 'test/here')
    await mkdir(place, { recursive: true })
    await symlink(join(root, 'test/support'), join(folder, 'test/support'))
    const files = sources.map((_, number) => `source${number}.ts`)
    for (const [number, file] of files.entries())
      await writeFile(join(place, file), sources[number] as string)
    const config = { extends: '../../tsconfig.json', include: [], files }
    const compilerOptions = { rootDir: '/' }
    await writeFile(join(place, 'tsconfig.json'), JSON.stringify({ ...config, compilerOptions }))
    const tsc = join(root, 'node_modules/.bin/tsc')
    const { stdout } = await run(tsc, ['-p', place, '--pretty', 'false']).catch(
      (error: { stdout: string }) => error,
    )
    const errors = stdout.split('\n').filter((line) => /error TS/.test(line))
    return files.map((file) => errors.filter((line) => line.includes(file)))
  } finally {
    await rm(folder, { recursive: true })
  }
}

/**
 * A file whose right uses compile, and whose wrong uses, each behind a `@ts-expect-error`, are each an error of its own;
 * there are so many of these at least.
 */
export async function checkTypes(file: string, least: number): Promise<void> {
  const source = await readFile(file, 'utf8')
  const marks = /^ +\/\/ @ts-expect-error .*$/gm
  const expected = source.match(marks) ?? []
  assert.ok(expected.length >= least, `${expected.length} wrong uses`)
  const [anyway, said = []] = await compile([source, source.replace(marks, '')])
  assert.deepEqual(anyway, [])
  const lines = new Set(said.map((line) => /source1\.ts\((\d+),/.exec(line)?.[1]))
  assert.equal(lines.size, expected.length, said.join('\n'))
}
