import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { ROOT } from './compiled-output.ts'
import { temporaryFolder, tie } from './lifeline.ts'

export { ROOT }

const run = promisify(execFile)

/** Names a tarball of this package that is packed already, for all tests of one run. */
export const PACKED = 'SOLOFLIGHT_PACKED'

/** The path of the tarball that npm would publish: built anew, unless the environment names one. */
export async function pack(): Promise<string> {
  const packed = process.env[PACKED]
  if (packed !== undefined) return packed
  const folder = await temporaryFolder()
  await run('npm', ['pack', '--pack-destination', folder], { cwd: ROOT })
  const [name = ''] = await readdir(folder)
  return join(folder, name)
}

/** Runs a command whose output is shown. Resolves to whether it has ended well. */
export async function succeeds(
  command: string,
  args: readonly string[],
  options: { cwd: string; env?: Record<string, string | undefined>; timeout?: number },
): Promise<boolean> {
  const env = { ...process.env, ...options.env }
  const child = spawn(command, args, { ...options, env, stdio: ['ignore', 'inherit', 'inherit'] })
  tie(child)
  const [code] = await once(child, 'exit')
  return code === 0
}

/**
 * Copies a project to where only its own packages are found, and installs these by its lock, and the tarball.
 * Returns the copy.
 */
export async function installed(project: string, tarball: string): Promise<string> {
  const folder = join(await temporaryFolder(), basename(project))
  await cp(project, folder, { recursive: true, filter: (path) => basename(path) !== 'node_modules' })
  const args = ['install', '--prefer-offline', '--loglevel=error', tarball]
  if (!(await succeeds('npm', args, { cwd: folder }))) throw new Error(`${project} cannot be installed`)
  return folder
}
