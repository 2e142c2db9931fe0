import { HEADER_LENGTH } from '../store/redis/scripts/prelude.ts'
import type { Outcome } from '../store/store.ts'

/** A value with its header, as the record holds it in one field: a plain read of that field tells all about it. */
export interface StoredValue {
  fence: number
  /** Times of the server, ms since the epoch. `staleUntil` is 0 when the value is not kept beyond `freshUntil`. */
  freshUntil: number
  staleUntil: number
  tags: string
  bytes: Buffer
}

const LENGTH_OF_TAGS = 4

/** Reads a value. What the scripts have not written is not fresh, and has no bytes. */
export function parseValue(value: Buffer): StoredValue {
  try {
    const tagged = value.readUInt8(0) === 1
    const bytesAt = HEADER_LENGTH + (tagged ? LENGTH_OF_TAGS + value.readUInt32BE(HEADER_LENGTH) : 0)
    return {
      fence: value.readDoubleBE(1),
      freshUntil: value.readDoubleBE(9),
      staleUntil: value.readDoubleBE(17),
      tags: tagged ? value.toString('utf8', HEADER_LENGTH + LENGTH_OF_TAGS, bytesAt) : '',
      bytes: value.subarray(bytesAt),
    }
  } catch {
    return { fence: 0, freshUntil: 0, staleUntil: 0, tags: '', bytes: Buffer.alloc(0) }
  }
}

/** The outcome that a value is at a time of the server; undefined when it is not fresh. */
export function freshOutcome(value: Buffer, now: number): Outcome | undefined {
  const { fence, freshUntil, staleUntil, tags, bytes } = parseValue(value)
  const fresh = freshUntil - now
  // Bytes that the scripts have not written may read as any number.
  if (!(fresh > 0) || !Number.isSafeInteger(fence) || !Number.isFinite(freshUntil + staleUntil))
    return undefined
  const stale = Math.max(0, staleUntil - freshUntil)
  return { kind: 'value', fence, bytes, ttlLeft: fresh, invalidated: false, staleLeft: stale, tags }
}
