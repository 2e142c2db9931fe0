import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const installed = new Map<string, Promise<unknown>>()

/** Installs a peer that has a package of its own, once: only the parts that measure it need it. */
export async function installPeer(name: string): Promise<void> {
  const folder = fileURLToPath(new URL(`./peers/${name}`, import.meta.url))
  const installing = installed.get(name) ?? promisify(execFile)('npm', ['ci'], { cwd: folder })
  installed.set(name, installing)
  await installing
}
