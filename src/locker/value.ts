import { HEADER_LENGTH } from './scripts/prelude.ts'
import type { Outcome } from './store.ts'

/** First byte of a value that has no tags and is not kept beyond its end: its header tells all. */
export const PLAIN_VALUE = 0

/** First byte of values that have tags, at the least. */
export const TAGGED_VALUE = 2

/** The bytes of a value as the record holds it. */
export function bytesOf(value: Buffer): Buffer {
  return value.subarray(HEADER_LENGTH)
}

/** Reads a value with its header, if it is fresh at a time of the server. What is kept beyond that stands elsewhere. */
export function readValue(value: Buffer, serverNow: number): Outcome | undefined {
  if (value.length < HEADER_LENGTH) return undefined
  const fresh = value.readDoubleBE(9) - serverNow
  if (!(fresh > 0)) return undefined
  const fence = value.readDoubleBE(1)
  return { kind: 'value', fence, bytes: bytesOf(value), fresh, doomed: false, stale: 0, tags: '' }
}
