// Installs the packed package into each small project of this folder and runs the project's own tests, with a Redis
// at REDIS_URL: npm run check:projects [-- name …]

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installed, pack, succeeds } from '../../support/packed.ts'
import { setup } from '../../support/setup.ts'

const PROJECTS = fileURLToPath(new URL('.', import.meta.url))

const asked = process.argv.slice(2)
const folders = (await readdir(PROJECTS, { withFileTypes: true })).filter((entry) => entry.isDirectory())
const names = asked.length > 0 ? asked : folders.map(({ name }) => name).sort()

await using t = await setup({ port: 'free' })
const tarball = await pack()
const failed: string[] = []
// Installing is mostly waiting: all at once.
const places = await Promise.all(names.map((name) => installed(join(PROJECTS, name), tarball)))
for (const [index, name] of names.entries()) {
  console.log(`\n--- ${name}`)
  const cwd = places[index] as string
  if (!(await succeeds('npm', ['test'], { cwd, env: { REDIS_URL: t.url } }))) failed.push(name)
}
console.log(`\n${names.length - failed.length} of ${names.length} projects pass`)
if (failed.length > 0) throw new Error(`These do not: ${failed.join(', ')}`)
