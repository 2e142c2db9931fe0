import { type JobOutcome, type JobSnapshot, type OutcomeReply, type SubmitReply, stateOf } from '../store.ts'

/** Reads what the scripts of the queue return. */

export function toText(value: unknown): string {
  return value === null || value === undefined ? '' : String(value)
}

export function toBytes(value: unknown): Buffer {
  return Buffer.isBuffer(value) ? value : Buffer.from(toText(value))
}

/** A number; undefined when it is the text of an error. */
export function toCode(value: unknown): number | undefined {
  const code = Number(toText(value))
  return Number.isInteger(code) ? code : undefined
}

const KINDS: Record<string, JobOutcome['kind']> = { V: 'value', E: 'error', X: 'removed' }

/** A text: it failed for this one alone, and that is why. */
export function parseSubmitReply(reply: unknown): SubmitReply | string {
  const [head, bytes]: unknown[] = Array.isArray(reply) ? reply : [reply]
  const text = toText(head)
  const rest = text.slice(2)
  switch (text[0]) {
    case 'C':
      return { status: 'created', generation: Number(rest) }
    case 'J':
      return { status: 'joined', generation: Number(rest) }
    case 'V':
    case 'E': {
      const [fence, generation] = rest.split(' ').map(Number) as [number, number]
      const outcome = { kind: KINDS[text[0]] ?? 'error', fence, bytes: toBytes(bytes) }
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

export function parseOutcomeReply(head: unknown, bytes: unknown): OutcomeReply {
  const [letter = '', fence] = toText(head).split(' ')
  const kind = KINDS[letter]
  if (kind) return { status: 'settled', outcome: { kind, fence: Number(fence), bytes: toBytes(bytes) } }
  return { status: letter === 'P' ? 'pending' : 'gone' }
}

export function parseSnapshot(id: string, reply: unknown): JobSnapshot | undefined {
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
  const over = Number(toText(settled)) >= Number(toText(y))
  const outcomeKind = KINDS[toText(kind).toUpperCase()]
  const outcome =
    over && outcomeKind
      ? { kind: outcomeKind, fence: Number(toText(last)), bytes: toBytes(bytes) }
      : undefined
  return {
    id,
    command: toText(command),
    state: stateOf(outcome?.kind, toText(owner) !== '', toText(due) !== ''),
    payload: toText(payload),
    options: toText(options),
    generation: Number(toText(y)),
    failures: Number(failed),
    stalls: Number(stalled),
    fence: Number(toText(fence)),
    progress: Buffer.isBuffer(progress) ? progress : undefined,
    outcome,
    waiters: Number(waiters),
  }
}
