import { masked } from '../secrets.ts'

/** Messages that were emitted, by code. */
const emitted = new Map<string, Set<string>>()

/** Different messages of one code, at most: a message may contain text that user code threw. */
const MAX_PER_CODE = 100

/**
 * Emits a process warning (`process.emitWarning`: on stderr, and to listeners of 'warning') once for each code and message.
 * Codes are stable. The stack of `cause` is the detail of the warning, if it is an error.
 */
export function warnOnce(code: `SOLOFLIGHT_${string}` | 'E_HOOK', text: string, cause?: unknown): void {
  const message = masked(text)
  const messages = emitted.get(code) ?? new Set()
  emitted.set(code, messages)
  if (messages.has(message) || messages.size >= MAX_PER_CODE) return
  messages.add(message)
  emitWarning(message, { type: 'SoloflightWarning', code }, cause)
}

/** Emits a process warning with credentials masked. The stack of `cause` is its detail, if it is an error. */
export function emitWarning(
  message: string,
  options: { type: string; code?: string },
  cause?: unknown,
): void {
  const detail = cause instanceof Error && { detail: masked(String(cause.stack)) }
  process.emitWarning(masked(message), { ...options, ...detail })
}
