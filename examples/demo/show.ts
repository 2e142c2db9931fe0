import { styleText } from 'node:util'
import { type Found, MOST_BYTES, MOST_FILES } from './folder.ts'
import type { Report } from './report.ts'

// `styleText` colours a terminal only, and not with NO_COLOR.

/** Ends the process quietly when nobody reads its output any more, as under `| head`. */
export function endWithReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error
      process.exit()
    })
  }
}

export function title(text: string): void {
  console.log(`\n${styleText('bold', text)}\n`)
}

/** A line that can be taken in at a glance. */
export function fact(name: string, value: string): void {
  console.log(`  ${styleText('cyan', name.padEnd(14))}${plain(value)}`)
}

/** A line that the next one writes over; on a terminal only. */
export function passing(text: string): void {
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${text && `  ${text}`}`)
}

/** Without characters that would steer the terminal: names of files are anybody's. */
export function plain(text: string): string {
  return text.replace(/\p{C}/gu, '?')
}

export function time(ms: number): string {
  if (ms < 10) return `${ms.toFixed(2)} ms`
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`
}

function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  return bytes < 1_000_000 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`
}

export function showFolder(folder: string, { files, bytes, more }: Found): void {
  const count = files.length === 1 ? '1 file' : `${files.length} files`
  fact('folder', `${folder}: ${count}, ${size(bytes)}`)
  if (more) fact('', `it has more: at most ${MOST_FILES} files and ${size(MOST_BYTES)} are taken`)
}

/** How many received the same: '100 × report 1f2e…'. */
export function tally(received: string[]): string {
  const counts = new Map<string, number>()
  for (const what of received) counts.set(what, (counts.get(what) ?? 0) + 1)
  return Array.from(counts, ([what, count]) => `${count} × ${what}`).join(', ')
}

/** How many files are shown. */
const ROWS = 5

export function showReport({ files, unreadable, alike }: Report): void {
  console.log(`\n${row('largest files', 'lines', 'words', 'size', 'gzip', 'brotli', 'sha-256')}`)
  for (const { name, lines, words, bytes, gzip, brotli, sha256 } of files.slice(0, ROWS)) {
    const part = (compressed: number) => `${Math.round((100 * compressed) / bytes)} %`
    console.log(row(name, `${lines}`, `${words}`, size(bytes), part(gzip), part(brotli), sha256.slice(0, 8)))
  }
  for (const { one, other, similarity } of alike.slice(0, 3)) {
    console.log(`  ${(100 * similarity).toFixed(0).padStart(3)} % alike: ${plain(`${one} and ${other}`)}`)
  }
  if (unreadable.length > 0)
    console.log(`  could not be read: ${plain(unreadable.slice(0, ROWS).join(', '))}`)
  console.log()
}

function row(name: string, ...columns: string[]): string {
  const shown = plain(name.length > 26 ? `…${name.slice(-25)}` : name)
  return `  ${shown.padEnd(26)}${columns.map((column) => column.padStart(9)).join('')}`
}
