import { masked } from '../secrets.ts'

/** Warnings that were given, by code, so that none is given twice. */
const emitted = new Map<string, Set<string>>()

/** Different warnings of one code, at most: a message may hold what a user's code threw. */
const MAX_PER_CODE = 100

/**
 * Tells the operator of this process something once, by `process.emitWarning`: on stderr, and to listeners of 'warning'.
 * `code` is stable; the same code with another message is another warning. The stack of `cause` is shown below it, if that
 * is an error.
 */
export function warnOnce(code: `SOLOFLIGHT_${string}` | 'E_HOOK', said: string, cause?: unknown): void {
  const message = masked(said)
  const messages = emitted.get(code) ?? new Set()
  emitted.set(code, messages)
  if (messages.has(message) || messages.size >= MAX_PER_CODE) return
  messages.add(message)
  emitWarning(message, { type: 'SoloflightWarning', code }, cause)
}

/** Emits a process warning that shows no credentials, and the stack of `cause` below it, if that is an error. */
export function emitWarning(message: string, about: { type: string; code?: string }, cause?: unknown): void {
  const detail = cause instanceof Error && { detail: masked(String(cause.stack)) }
  process.emitWarning(masked(message), { ...about, ...detail })
}
