import { ID_LENGTH, newId } from '../../kernel/keys.ts'
import { isWellFormedName } from '../../kernel/names.ts'
import { heldOptions, holderOf, MAX_HELD_OPTIONS } from '../store/holder.ts'
import type { AttemptRef } from '../store/store.ts'
import { isJobId } from '../submitting/submission.ts'

/**
 * A token names an attempt that is held by whoever has the token, in any process: base64url of what is in {@link TokenContent}.
 * The attempt has a holder of its own, whose name covers all that the token says: see holder.ts. So one token tells nothing about
 * another, and a token that was changed names a holder that no job has.
 */
export interface TokenContent {
  readonly queue: string
  readonly command: string
  readonly id: string
  /** Number of the attempt, from 1. */
  readonly attempt: number
  readonly fence: number
  readonly secret: string
  /** Options of the submission, as stored; undefined if they are too long for a token. */
  readonly options: string | undefined
}

/** Longest token, in characters: names of queue and command have 256 at most, each six in JSON; options 512, each two or three. */
const MAX_TOKEN = 8_192
const TOKEN = /^[\w-]+$/
const SECRET = new RegExp(`^[\\w-]{${ID_LENGTH}}$`)

/** A secret of a new token. */
export function newSecret(): string {
  return newId()
}

/** The token of an attempt. `options`: of the submission, as stored. */
export function tokenOf(
  { queue, command, id, attempt, fence, secret }: Omit<TokenContent, 'options'>,
  options: string,
): TokenContent {
  return { queue, command, id, attempt, fence, secret, options: heldOptions(options) }
}

export function encodeToken({ queue, command, id, attempt, fence, secret, options }: TokenContent): string {
  const parts = [queue, command, id, attempt, fence, secret, options ?? null]
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

/** The attempt that a token names, as held by it. */
export function attemptOf({ queue, command, id, attempt, fence, secret, options }: TokenContent): AttemptRef {
  const failures = attempt - 1
  return { worker: holderOf({ queue, command, secret, id, fence, failures, options }), id, fence }
}

function isNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0
}

/** Reads a token of a queue; undefined unless it is one. Whether a job is held by it is known to the store alone. */
export function parseToken(queue: string, token: unknown): TokenContent | undefined {
  if (typeof token !== 'string' || token.length > MAX_TOKEN || !TOKEN.test(token)) return undefined
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(token, 'base64url').toString())
  } catch {
    return undefined
  }
  if (!Array.isArray(parts) || parts.length !== 7) return undefined
  const [named, command, id, attempt, fence, secret, options]: unknown[] = parts
  if (named !== queue || !isWellFormedName(command) || !isJobId(id)) return undefined
  if (!isNumber(attempt) || !isNumber(fence)) return undefined
  if (typeof secret !== 'string' || !SECRET.test(secret)) return undefined
  if (options !== null && (typeof options !== 'string' || options.length > MAX_HELD_OPTIONS)) return undefined
  return { queue, command, id, attempt, fence, secret, options: options ?? undefined }
}
