// Installs the packed package into each small project of this folder and runs the project's own tests, with a Redis
// at REDIS_URL: npm run check:projects [-- name …]

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { temporaryFolder, tie } from '../support/lifeline.ts'
import { setup } from '../support/setup.ts'

const run = promisify(execFile)
const PROJECTS = fileURLToPath(new URL('.', import.meta.url))
const ROOT = join(PROJECTS, '../..')

/** The path of the tarball, as npm would publish it. */
async function pack(folder: string): Promise<string> {
  await run('npm', ['pack', '--pack-destination', folder], { cwd: ROOT })
  const [name = ''] = await readdir(folder)
  return join(folder, name)
}

/** Runs a command of npm in a project, and shows what it says. */
async function npm(args: readonly string[], cwd: string, env: Record<string, string> = {}): Promise<boolean> {
  const child = spawn('npm', args, { cwd, env: { ...process.env, ...env }, stdio: 'inherit' })
  tie(child)
  const [code] = await once(child, 'exit')
  return code === 0
}

/** Outside this repository, where only the project's own packages are found. */
async function check(name: string, tarball: string, redis: string): Promise<boolean> {
  console.log(`\n--- ${name}`)
  const folder = join(await temporaryFolder(), name)
  await cp(join(PROJECTS, name), folder, {
    recursive: true,
    filter: (path) => !path.includes('node_modules'),
  })
  // By the project's lock, which the tarball is not part of: it is another one each time.
  const install = ['install', '--no-save', '--prefer-offline', tarball]
  return (await npm(install, folder)) && (await npm(['test'], folder, { REDIS_URL: redis }))
}

const asked = process.argv.slice(2)
const folders = (await readdir(PROJECTS, { withFileTypes: true })).filter((entry) => entry.isDirectory())
const names = asked.length > 0 ? asked : folders.map(({ name }) => name).sort()

await using t = await setup({ port: 'free' })
const tarball = await pack(await temporaryFolder())
const failed: string[] = []
for (const name of names) if (!(await check(name, tarball, t.url))) failed.push(name)
console.log(`\n${names.length - failed.length} of ${names.length} projects pass`)
if (failed.length > 0) throw new Error(`These do not: ${failed.join(', ')}`)
