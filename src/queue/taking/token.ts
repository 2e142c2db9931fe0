import { createHash } from 'node:crypto'
import { ID_LENGTH, newId } from '../../kernel/keys.ts'
import type { AttemptRef, WorkerRef } from '../store/store.ts'
import { isJobId } from '../submitting/submission.ts'

/**
 * A token names an attempt that is held by whoever has the token, in any process: base64url of what is in {@link TokenContent}.
 * When a job is handed out, its attempt is given from the worker that took it to a holder of its own: a worker that exists in
 * no process. The address of the holder is the secret of the token, and a digest of everything else in it. So one token tells
 * nothing about another, and a token that was changed names a holder that no job has.
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
/** Longest options that a token has: others are read from the store when the job ends. */
const MAX_OPTIONS = 512
const TOKEN = /^[\w-]+$/
const SECRET = new RegExp(`^[\\w-]{${ID_LENGTH}}$`)

/** A token for an attempt. Each call returns another one. */
export function newToken(content: Omit<TokenContent, 'secret' | 'options'>, options: string): TokenContent {
  return { ...content, secret: newId(), options: options.length > MAX_OPTIONS ? undefined : options }
}

/** The content as JSON: one text for one content. */
function toText({ queue, command, id, attempt, fence, secret, options }: TokenContent): string {
  return JSON.stringify([queue, command, id, attempt, fence, secret, options ?? null])
}

export function encodeToken(content: TokenContent): string {
  return Buffer.from(toText(content)).toString('base64url')
}

/** The holder that a token names. */
function holderOf(content: TokenContent): WorkerRef {
  const digest = createHash('sha256').update(toText(content)).digest('base64url')
  return { command: content.command, inbox: digest.slice(0, ID_LENGTH), nonce: content.secret }
}

/** The attempt that a token names, as held by it. */
export function attemptOf(content: TokenContent): AttemptRef {
  return { worker: holderOf(content), id: content.id, fence: content.fence }
}

function isNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= 256 && value.isWellFormed()
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
  if (named !== queue || !isName(command) || !isJobId(id)) return undefined
  if (!isNumber(attempt) || !isNumber(fence)) return undefined
  if (typeof secret !== 'string' || !SECRET.test(secret)) return undefined
  if (options !== null && (typeof options !== 'string' || options.length > MAX_OPTIONS)) return undefined
  return { queue, command, id, attempt, fence, secret, options: options ?? undefined }
}
