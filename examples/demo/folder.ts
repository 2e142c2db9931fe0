import { lstat, opendir, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** More than this is left out, so that the demonstration stays one. */
export const MOST_FILES = 300
export const MOST_BYTES = 1_000_000
/** A large tree is not searched any further than this many entries. */
const MOST_ENTRIES = 20_000

export interface Found {
  /** Paths below the folder, sorted. */
  files: string[]
  bytes: number
  /** Whether there is more than what the limits let in. */
  more: boolean
}

/**
 * The files of a folder and of those below it, nearest first, within the limits. Left out: hidden ones, `node_modules`,
 * empty files, links, other file systems, and folders that may not be read. Rejects when the folder itself cannot be.
 */
export async function findFiles(folder: string): Promise<Found> {
  const found: Found = { files: [], bytes: 0, more: false }
  const { dev } = await stat(folder)
  const folders = ['']
  let entries = 0

  /** Adds what is in one folder. Returns whether it is time to stop. */
  const search = async (below: string): Promise<boolean> => {
    for await (const { name } of await opendir(join(folder, below))) {
      if (++entries > MOST_ENTRIES || found.files.length === MOST_FILES) return true
      if (name.startsWith('.') || name === 'node_modules') continue
      const path = join(below, name)
      const entry = await lstat(join(folder, path))
      if (entry.dev !== dev) continue
      if (entry.isDirectory()) folders.push(path)
      if (!entry.isFile() || entry.size === 0) continue
      if (found.bytes + entry.size > MOST_BYTES) {
        found.more = true
      } else {
        found.files.push(path)
        found.bytes += entry.size
      }
    }
    return false
  }

  for (const below of folders) {
    const stop = await search(below).catch((error) => {
      if (below === '') throw error
    })
    if (stop) return sorted({ ...found, more: true })
  }
  return sorted(found)
}

function sorted(found: Found): Found {
  return { ...found, files: found.files.sort() }
}
