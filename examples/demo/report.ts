import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { brotliCompress, gzip } from 'node:zlib'
import { findFiles } from './folder.ts'

const squeeze = promisify(brotliCompress)
const zip = promisify(gzip)

export interface FileReport {
  name: string
  lines: number
  words: number
  bytes: number
  /** Bytes when compressed as well as gzip and brotli can. */
  gzip: number
  brotli: number
  sha256: string
}

export interface Report {
  files: FileReport[]
  /** Files that could not be read. */
  unreadable: string[]
  /** The most similar files first: 1 would be the same content twice, 0 nothing in common. */
  alike: { one: string; other: string; similarity: number }[]
}

export interface ReportOptions {
  signal: AbortSignal
  /** Called after each step; the next one waits for it. */
  onStep: (done: number, total: number) => unknown
}

/** Only the largest files are compared, by how they begin: the number of pairs grows with the square. */
const COMPARED = 12
const BEGINNING = 8 * 1024

/** As many as zlib has threads. */
const LANES = 4

/**
 * Counts, hashes and compresses every file of a folder, and finds those that resemble each other by their normalized
 * compression distance (Cilibrasi & Vitányi, 2005): two files are alike as far as they compress better together.
 */
export async function makeReport(folder: string, { signal, onStep }: ReportOptions): Promise<Report> {
  const names = (await findFiles(folder)).files
  const compared = Math.min(names.length, COMPARED)
  const total = names.length + (compared * (compared - 1)) / 2
  let done = 0
  const inLanes = <T>(items: T[], step: (item: T) => Promise<unknown>) =>
    eachOf(items, async (item) => {
      signal.throwIfAborted()
      await step(item)
      await onStep(++done, total)
    })

  const contents = new Map<string, Buffer>()
  const unreadable: string[] = []
  const files: FileReport[] = []
  await inLanes(names, async (name) => {
    const content = await readFile(join(folder, name)).catch(() => undefined)
    if (!content) return unreadable.push(name)
    contents.set(name, content)
    files.push(await describe(name, content))
  })
  if (files.length === 0) throw new Error(`none of the ${names.length} files in ${folder} can be read`)

  const largest = [...contents].sort(([, a], [, b]) => b.length - a.length).slice(0, compared)
  const beginnings = await Promise.all(
    largest.map(async ([name, content]) => {
      const bytes = content.subarray(0, BEGINNING)
      return { name, bytes, squeezed: (await squeeze(bytes)).length }
    }),
  )
  const alike: Report['alike'] = []
  const pairs = beginnings.flatMap((one, i) => beginnings.slice(i + 1).map((other) => ({ one, other })))
  await inLanes(pairs, async ({ one, other }) => {
    const together = (await squeeze(Buffer.concat([one.bytes, other.bytes]))).length
    const [less = 0, more = 1] = [one.squeezed, other.squeezed].sort((a, b) => a - b)
    alike.push({ one: one.name, other: other.name, similarity: 1 - (together - less) / more })
  })
  return {
    files: files.sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1)),
    unreadable: unreadable.sort(),
    alike: alike.sort((a, b) => b.similarity - a.similarity || (a.one + a.other < b.one + b.other ? -1 : 1)),
  }
}

async function describe(name: string, content: Buffer): Promise<FileReport> {
  const text = content.toString()
  return {
    name,
    lines: text.split('\n').length - (text.endsWith('\n') ? 1 : 0),
    words: text.match(/\S+/g)?.length ?? 0,
    bytes: content.length,
    gzip: (await zip(content, { level: 9 })).length,
    brotli: (await squeeze(content)).length,
    sha256: createHash('sha256').update(content).digest('hex'),
  }
}

/** Does `step` for every item, a few at a time. */
async function eachOf<T>(items: T[], step: (item: T) => Promise<unknown>): Promise<void> {
  const queue = items.values()
  const lane = async () => {
    for (const item of queue) await step(item)
  }
  await Promise.all(Array.from({ length: LANES }, lane))
}

/** Tells two reports apart. */
export function digestOf(report: Report): string {
  return createHash('sha256').update(JSON.stringify(report)).digest('hex').slice(0, 12)
}
