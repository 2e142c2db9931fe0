import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

type Library = typeof import('../src/index.ts')

/** Subpaths that are measured. */
interface Parts {
  'memoize/node': typeof import('../src/memoize/node.ts')
  'memoize/fetch': typeof import('../src/memoize/fetch.ts')
}

const ROOT = new URL('../', import.meta.url)

/** Where the library is built: below the root, so that it finds the dependencies of the package and no others. */
const BUILD = new URL('node_modules/.cache/soloflight-bench/', ROOT)

/**
 * Builds the library as it is published. The sources through tsx are slower: tsx gives every inner function its name as
 * it is made, which hot paths pay for.
 */
export async function buildLibrary(): Promise<void> {
  const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', ROOT))
  const args = [tsc, '-p', 'tsconfig.build.json', '--outDir', fileURLToPath(BUILD)]
  await promisify(execFile)(process.execPath, args, { cwd: fileURLToPath(ROOT) })
}

/** The library that is measured. */
export async function library(): Promise<Library> {
  return (await built('index')) as Library
}

/** One of its subpaths. */
export async function libraryPart<Name extends keyof Parts>(name: Name): Promise<Parts[Name]> {
  return (await built(name)) as Parts[Name]
}

function built(name: string): Promise<unknown> {
  return import(new URL(`${name}.js`, BUILD).href)
}
