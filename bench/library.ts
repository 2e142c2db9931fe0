import { execFile } from 'node:child_process'
import { fileURLToPath, pathToFileURL } from 'node:url'
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

/** Tells the children which library is measured. */
const VARIABLE = 'SOLOFLIGHT_BENCH_LIBRARY'

/**
 * Builds the library as it is published and lets this process and its children measure that. tsx, which runs the bench,
 * would compile the sources as well, but gives every inner function its name as it is made, which hot paths pay for: the
 * hit in the process measured 0.87 of that of the build. `source`: the sources all the same.
 */
export async function prepareLibrary(source: boolean): Promise<void> {
  if (source) {
    process.env[VARIABLE] = new URL('src/index.ts', ROOT).href
    return
  }
  const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', ROOT))
  const args = [tsc, '-p', 'tsconfig.build.json', '--outDir', fileURLToPath(BUILD)]
  await promisify(execFile)(process.execPath, args, { cwd: fileURLToPath(ROOT) })
  process.env[VARIABLE] = new URL('index.js', pathToFileURL(fileURLToPath(BUILD))).href
}

/** The library that is measured. */
export async function library(): Promise<Library> {
  const url = process.env[VARIABLE]
  if (!url) throw new Error('The library is not prepared')
  return (await import(url)) as Library
}

/** One of its subpaths. */
export async function libraryPart<Name extends keyof Parts>(name: Name): Promise<Parts[Name]> {
  const url = process.env[VARIABLE]
  if (!url) throw new Error('The library is not prepared')
  return (await import(url.replace(/index\.(?=[jt]s$)/, `${name}.`))) as Parts[Name]
}
