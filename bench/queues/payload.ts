import { createHash } from 'node:crypto'

/** What a job carries. The result is the sum of `n` and the quantities. */
export interface Payload {
  n: number
  lines: readonly Line[]
  note: string
}

interface Line {
  article: string
  quantity: number
  price: number
}

/** Bytes of a line as JSON, with its comma. */
const LINE = 56

const LINES: readonly Line[] = Array.from({ length: 100 }, (_, index) => ({
  article: `article-${1_000_000 + index}`,
  quantity: 3,
  price: 1_995,
}))

/** So many bytes of JSON, 1 KB unless told otherwise; no two `n` have the same. */
export function payloadOf(n: number, bytes = 1_000): Payload {
  const bare = { n, lines: LINES.slice(0, Math.floor((bytes - 50) / LINE)), note: '' }
  return { ...bare, note: 'x'.repeat(bytes - JSON.stringify(bare).length) }
}

export function sumOf({ n, lines }: Payload): number {
  return lines.reduce((total, { quantity }) => total + quantity, n)
}

/** By what peers know a payload again, as somebody would write it who thinks of memory too. */
export function dedupeIdOf(payload: Payload): string {
  return createHash('sha1').update(JSON.stringify(payload)).digest('base64url')
}
