import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

type Library = typeof import('../src/index.ts')

/** Subpaths that are measured. */
interface Parts {
  'memoize/node': typeof import('../src/memoize/node.ts')
  'memoize/fetch': typeof import('../src/memoize/fetch.ts')
  'services/index': typeof import('../src/services/index.ts')
  'bus/index': typeof import('../src/bus/index.ts')
  'gateway/index': typeof import('../src/gateway/index.ts')
  'gateway/node': typeof import('../src/gateway/node.ts')
}

const ROOT = new URL('../', import.meta.url)

/** Where libraries are built: below the root, so that they find the dependencies of the package and no others. */
const BUILDS = new URL('node_modules/.cache/', ROOT)

/** A process measures the library of this checkout, or the one that is built in the folder of this variable. */
const BUILD_VARIABLE = 'SOLOFLIGHT_BENCH_BUILD'

/** Builds of this checkout and of the one that it is compared with. */
export type Build = 'soloflight-bench' | 'soloflight-bench-baseline'

/**
 * Builds the library of a checkout as it is published. The sources through tsx are slower: tsx gives every inner function
 * its name as it is made, which hot paths pay for.
 */
export async function buildLibrary(
  checkout: string = fileURLToPath(ROOT),
  build: Build = 'soloflight-bench',
): Promise<void> {
  const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', ROOT))
  const args = [
    tsc,
    '-p',
    join(checkout, 'tsconfig.build.json'),
    '--outDir',
    fileURLToPath(new URL(build, BUILDS)),
  ]
  await promisify(execFile)(process.execPath, args, { cwd: checkout })
}

/** The environment of a process that measures a build. */
export function buildEnvironment(build: Build | undefined): Record<string, string> {
  return build ? { [BUILD_VARIABLE]: build } : {}
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
  const build = process.env[BUILD_VARIABLE] ?? ('soloflight-bench' satisfies Build)
  return import(new URL(`${build}/${name}.js`, BUILDS).href)
}
