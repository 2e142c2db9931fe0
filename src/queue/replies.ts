import type { Answer, JobOutcome, JobSnapshot, SubmitReply } from './store.ts'

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

/** Undefined: it failed for this one alone, `more` says why. */
export function submitReplyOf(head: unknown, more: unknown): SubmitReply | undefined {
  const [letter = '', fence, generation] = textOf(head).split(' ')
  switch (letter) {
    case 'C':
      return { status: 'created', generation: Number(textOf(more)) }
    case 'J':
      return { status: 'joined', generation: Number(textOf(more)) }
    case 'V':
    case 'E': {
      const outcome = { kind: KINDS[letter] ?? 'error', fence: Number(fence), bytes: bytesOf(more) }
      return { status: 'cached', generation: Number(generation), outcome }
    }
    case 'X':
      return { status: 'conflict' }
    case 'U':
      return { status: 'unknown' }
    case 'O':
      return { status: 'overloaded' }
    default:
      return undefined
  }
}

export function answerOf(head: unknown, bytes: unknown): Answer {
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
    payload: bytesOf(payload),
    options: textOf(options),
    generation: Number(textOf(y)),
    failed: Number(failed),
    stalled: Number(stalled),
    fence: Number(textOf(fence)),
    progress: Buffer.isBuffer(progress) ? progress : undefined,
    outcome,
    waiters: Number(waiters),
  }
}

const OVER = { value: 'completed', error: 'failed', removed: 'removed' } as const

function stateOf(
  over: JobOutcome['kind'] | undefined,
  owned: boolean,
  delayed: boolean,
): JobSnapshot['state'] {
  if (over) return OVER[over]
  if (owned) return 'active'
  return delayed ? 'delayed' : 'waiting'
}
