import { FORMAT, keySegment } from '../../../kernel/keys.ts'
import type { RecordKind } from '../store.ts'

/**
 * The letter after the format number. No other layer has it: there, another letter and a slash or a brace, or a brace alone,
 * follow.
 */
const LETTERS: Record<RecordKind, string> = { queue: 'b', topic: 'p', object: 'o' }

/** Begins all keys of a record. They have the same hash tag, so they are in one slot. */
export function recordBase(prefix: string, kind: RecordKind, name: string): string {
  return `${prefix}:${FORMAT}:${LETTERS[kind]}{${keySegment(name)}}`
}

/** The key that says for which token a name is reserved. */
export function reservationKey(prefix: string, kind: RecordKind, name: string): string {
  return `${recordBase(prefix, kind, name)}n`
}
