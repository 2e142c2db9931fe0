import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build, type Plugin } from 'esbuild'
import { COMPILED, outputOf, ROOT } from './compiled-output.ts'
import { temporaryFolder } from './lifeline.ts'

const compiling = new Map<string, Promise<string>>()

/**
 * A TypeScript file as JavaScript that plain Node starts, in a third of the time that a loader of TypeScript takes.
 * It is compiled once in each process, unless {@link compileAll} has done it for all.
 */
export function compiled(file: string): Promise<string> {
  const known = compiling.get(file) ?? compile(file)
  compiling.set(file, known)
  return known
}

async function compile(file: string): Promise<string> {
  const all = process.env[COMPILED]
  const ready = all === undefined ? '' : outputOf(file, all)
  return existsSync(ready) ? ready : outputOf(file, await compileAll([file]))
}

/** Compiles TypeScript files, with all that they import of this repository; returns the folder, which ends with this process. */
export async function compileAll(files: readonly [string, ...string[]]): Promise<string> {
  // Beside the packages that they need.
  const cache = join(packagesOf(dirname(files[0])), '.cache')
  await mkdir(cache, { recursive: true })
  const folder = await temporaryFolder(cache)
  const client = await bundledClient(dirname(files[0]), folder)
  await build({
    entryPoints: [...files],
    outdir: folder,
    outbase: ROOT,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: 'inline',
    sourcesContent: false,
    logLevel: 'silent',
    define: { 'import.meta.url': URL_OF_SOURCE },
    plugins: [placed, inPlaceOf(CLIENT, client)],
  })
  return folder
}

/** Half of the time in which a process loads the library is that of the many files of its client. */
const CLIENT = 'ioredis'

/** The client that files of `from` import, as one file in `folder`. */
async function bundledClient(from: string, folder: string): Promise<string> {
  const require = createRequire(join(from, 'index.js'))
  const names = Object.keys(require(CLIENT) as object).filter((name) => name !== 'default')
  await build({
    entryPoints: { [CLIENT]: require.resolve(CLIENT) },
    outdir: folder,
    outExtension: { '.js': '.cjs' },
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    logLevel: 'silent',
  })
  // An import of CommonJS makes Node look for the names of its exports, which takes longer than to run it.
  const module = join(folder, `${CLIENT}.mjs`)
  await writeFile(
    module,
    `import { createRequire } from 'node:module'
export const { ${names.join(', ')} } = createRequire(import.meta.url)('./${CLIENT}.cjs')\n`,
  )
  return module
}

/** Imports of a package are imports of a file, which stays outside of the bundle. */
function inPlaceOf(name: string, path: string): Plugin {
  return {
    name: 'in-place-of',
    setup({ onResolve }) {
      onResolve({ filter: new RegExp(`^${name}$`) }, () => ({ path, external: true }))
    },
  }
}

const URL_OF_SOURCE = '__urlOfSource'

/** What a module finds beside itself, it finds beside its source. */
const placed: Plugin = {
  name: 'placed',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const source = await readFile(path, 'utf8')
      const url = JSON.stringify(pathToFileURL(path).href)
      const isUsed = source.includes('import.meta.url')
      return { loader: 'ts', contents: isUsed ? `const ${URL_OF_SOURCE} = ${url};${source}` : source }
    })
  },
}

/** The folder of the packages that a file of `folder` imports. */
function packagesOf(folder: string): string {
  const packages = join(folder, 'node_modules')
  if (existsSync(packages)) return packages
  const parent = dirname(folder)
  if (parent === folder) throw new Error('No packages are installed here')
  return packagesOf(parent)
}
