import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The root of the repository. */
export const ROOT: string = fileURLToPath(new URL('../..', import.meta.url))

/** Names the folder of compiled files, to the processes that they are for. */
export const COMPILED = 'SOLOFLIGHT_COMPILED'

/** The JavaScript that was made of a file, in this folder of compiled files. */
export function outputOf(file: string, folder: string): string {
  return join(folder, relative(ROOT, file).replace(/\.ts$/, '.mjs'))
}
