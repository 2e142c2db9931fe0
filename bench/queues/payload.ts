import { createHash } from 'node:crypto'

/** What a job carries: numbers, of which the result is the sum. */
export type Payload = number[]

/** Three numbers; no two `n` have the same. */
export function payloadOf(n: number): Payload {
  return [n, n + 1, n + 2]
}

/** Twelve numbers that are 100 bytes of JSON. */
export function widePayloadOf(n: number): Payload {
  return [1_000_000_000 + n, ...Array.from({ length: 11 }, (_, index) => 1_000_000 + index)]
}

export function sumOf(payload: Payload): number {
  return payload.reduce((total, number) => total + number, 0)
}

/** Longer names of payloads than this cost more memory than a digest, characters. */
const DIGEST_LENGTH = 27

/** By what peers know a payload again, as somebody would write it who thinks of memory too. */
export function dedupeIdOf(payload: Payload): string {
  const text = JSON.stringify(payload)
  return text.length <= DIGEST_LENGTH ? text : createHash('sha1').update(text).digest('base64url')
}
