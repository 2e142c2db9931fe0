import { stateOf } from '../../status.ts'
import type { JobOutcome, JobSnapshot, OutcomeReply, SubmitReply } from '../store.ts'

/** Reads what the scripts of the queue return. */

export function textOf(value: unknown): string {
  return value === null || value === undefined ? '' : String(value)
}

export function bytesOf(value: unknown): Buffer {
  return Buffer.isBuffer(value) ? value : Buffer.from(textOf(value))
}

/** A number; undefined when it is the text of an error. */
export function codeOf(value: unknown): number | undefined {
  const code = Number(textOf(value))
  return Number.isInteger(code) ? code : undefined
}

const KINDS: Record<string, JobOutcome['kind']> = { V: 'value', E: 'error', X: 'removed' }

/** A text: it failed for this one alone, and that is why. */
export function submitReplyOf(reply: unknown): SubmitReply | string {
  const [head, bytes]: unknown[] = Array.isArray(reply) ? reply : [reply]
  const text = textOf(head)
  const rest = text.slice(2)
  switch (text[0]) {
    case 'C':
      return { status: 'created', generation: Number(rest) }
    case 'J':
      return { status: 'joined', generation: Number(rest) }
    case 'V':
    case 'E': {
      const [fence, generation] = rest.split(' ').map(Number) as [number, number]
      const outcome = { kind: KINDS[text[0]] ?? 'error', fence, bytes: bytesOf(bytes) }
      return { status: 'cached', generation, outcome }
    }
    case 'X':
      return { status: 'conflict' }
    case 'U':
      return { status: 'unknown' }
    case 'O':
      return { status: 'overloaded' }
    default:
      return text.slice(1)
  }
}

export function answerOf(head: unknown, bytes: unknown): OutcomeReply {
  const [letter = '', fence] = textOf(head).split(' ')
  const kind = KINDS[letter]
  if (kind) return { status: 'settled', outcome: { kind, fence: Number(fence), bytes: bytesOf(bytes) } }
  return { status: letter === 'P' ? 'pending' : 'gone' }
}

export function snapshotOf(id: string, reply: unknown): JobSnapshot | undefined {
  if (!Array.isArray(reply)) return undefined
  const [
    command,
    y,
    settled,
    kind,
    owner,
    due,
    failed,
    stalled,
    options,
    progress,
    fence,
    last,
    waiters,
    payload,
    bytes,
  ] = reply as unknown[]
  const over = Number(textOf(settled)) >= Number(textOf(y))
  const outcomeKind = KINDS[textOf(kind).toUpperCase()]
  const outcome =
    over && outcomeKind
      ? { kind: outcomeKind, fence: Number(textOf(last)), bytes: bytesOf(bytes) }
      : undefined
  return {
    id,
    command: textOf(command),
    state: stateOf(outcome?.kind, textOf(owner) !== '', textOf(due) !== ''),
    payload: textOf(payload),
    options: textOf(options),
    generation: Number(textOf(y)),
    failures: Number(failed),
    stalls: Number(stalled),
    fence: Number(textOf(fence)),
    progress: Buffer.isBuffer(progress) ? progress : undefined,
    outcome,
    waiters: Number(waiters),
  }
}
