import { hash } from 'node:crypto'
import { ID_LENGTH } from '../../kernel/keys.ts'
import type { WorkerRef } from './store.ts'

/** An address is a digest in hex, and the secret. */
export const DIGEST_LENGTH = 40

/** Longest options, in bytes, that the name of a holder covers. Longer ones are read from the store when the job ends. */
export const MAX_HELD_OPTIONS = 512

/** What the name of a holder covers. */
export interface HolderContent {
  readonly queue: string
  readonly command: string
  readonly secret: string
  readonly id: string
  readonly fence: number
  readonly failures: number
  /** Options of the submission, as stored; undefined if they are too long. */
  readonly options: string | undefined
}

/**
 * The holder of an attempt: a worker that exists in no process. Its name can be computed from the secret and the attempt, by the
 * script that takes a job too (scripts/take.ts), so the holder of a secret cannot change what it says of the attempt. It is a
 * SHA-1 digest, which scripts have: with a secret in front that is random, another text with the same digest cannot be made.
 */
export function holderOf(content: HolderContent): WorkerRef {
  const { queue, command, secret, id, fence, failures, options } = content
  const attempt = `${id} ${fence} ${failures} ${options === undefined ? '-' : `+${options}`}`
  const covered = `${secret}${scopeOf(queue, command)}\n${attempt}`
  return parseHolder(command, hash('sha1', covered) + secret)
}

/** What the names of all holders of a command cover. */
export function scopeOf(queue: string, command: string): string {
  return JSON.stringify([queue, command])
}

/** A holder by its address. */
export function parseHolder(command: string, address: string): WorkerRef {
  return { command, inbox: address.slice(0, ID_LENGTH), nonce: address.slice(ID_LENGTH) }
}

/** The options that the name of a holder covers. */
export function heldOptions(options: string): string | undefined {
  return Buffer.byteLength(options) > MAX_HELD_OPTIONS ? undefined : options
}
