import { refusedError } from '../../../../kernel/redis/diagnosis.ts'
import type { Hint } from '../../../../kernel/redis/subscription.ts'
import type {
  AttachReply,
  Detached,
  Incoming,
  Lost,
  Outgoing,
  Pushed,
  QueueInfo,
  QueueSignal,
  Read,
  RenewalReply,
  Taken,
} from '../../store.ts'

// Encodes arguments of the scripts of queues, and parses their replies and signals. A parser throws UnavailableError if a
// reply is none: somebody has written to the keys by hand.

const SIGNALS: Readonly<Record<string, QueueSignal>> = { m: 'messages', r: 'room', c: 'closed', h: 'holder' }

/** Undefined if it is none: anybody can send one. */
export function parseSignal({ kind }: Hint): QueueSignal | undefined {
  return Object.hasOwn(SIGNALS, kind) ? SIGNALS[kind] : undefined
}

/** A whole number, as digits. Ids and numbers that are too large or none are those of nothing. */
export function encodeNumber(number: number): string {
  const whole = Math.floor(Math.min(Math.max(number, 0), Number.MAX_SAFE_INTEGER))
  return String(Number.isNaN(whole) ? 0 : whole)
}

/** Ids, as ranges `from-to` in order. */
export function encodeIds(ids: readonly number[]): string {
  const ranges: string[] = []
  const sorted = [...ids].sort((a, b) => a - b)
  for (let at = 0; at < sorted.length; at++) {
    const from = sorted[at] as number
    while ((sorted[at + 1] as number) <= (sorted[at] as number) + 1) at++
    ranges.push(`${encodeNumber(from)}-${encodeNumber(sorted[at] as number)}`)
  }
  return ranges.join(' ')
}

export function encodeFlag(flag: boolean): string {
  return flag ? '1' : '0'
}

/** The field of a message in the stream, and its bytes. */
export function encodeMessages(messages: readonly Outgoing[]): (string | Buffer)[] {
  const args: (string | Buffer)[] = []
  for (const { kind, key, bytes } of messages)
    args.push((kind === 'end' ? 'e' : 'u') + (key === '' ? '' : JSON.stringify(key)), bytes)
  return args
}

const DETACHED: Detached = { kind: 'detached' }
const LOST: Lost = { kind: 'lost' }

export function parseAttachReply(reply: unknown): AttachReply {
  const text = String(reply)
  if (text === 'C') return { kind: 'closed' }
  if (text === 'U') return { kind: 'unreserved' }
  const [, life, ttl, maxsize, existed] = /^(.*) (\d+) (\d+) ([01])$/s.exec(text) ?? refuse(reply)
  return {
    kind: 'attached',
    existed: existed === '1',
    life: life as string,
    ttl: Number(ttl),
    maxsize: Number(maxsize),
  }
}

export function parseRenewalReply(reply: unknown): RenewalReply | Error {
  const text = String(reply)
  switch (text) {
    case 'C':
      return 'consuming'
    case 'A':
      return 'attached'
    case 'D':
      return 'detached'
    default:
      return refusedError(text.replace(/^E/, ''))
  }
}

export function parsePushReply(reply: unknown): Pushed | Detached {
  if (isText(reply, 'D')) return DETACHED
  const [, first, count] = /^(\d+) (\d+)$/.exec(String(reply)) ?? refuse(reply)
  return { kind: 'pushed', first: Number(first), count: Number(count) }
}

export function parseConsumeReply(reply: unknown): boolean | Detached {
  return isText(reply, 'D') ? DETACHED : Number(reply) === 1
}

export function parseReadReply(reply: unknown): Read | Detached {
  const taken = parseTakeReply(reply)
  if (taken.kind === 'lost') return refuse(reply)
  return taken.kind === 'taken' ? { ...taken, fence: 0, after: taken.fence } : taken
}

export function parseTakeReply(reply: unknown): Taken | Lost | Detached {
  if (isText(reply, 'D')) return DETACHED
  if (isText(reply, 'L')) return LOST
  const [head, ...parts] = Array.isArray(reply) ? reply : refuse(reply)
  const [, isAll, askAfter, fence] = /^([01]) (-1|\d+) (\d+)$/.exec(String(head)) ?? refuse(head)
  const messages: Incoming[] = []
  for (let at = 0; at < parts.length; at += 2) messages.push(parseMessage(parts[at], parts[at + 1]))
  return {
    kind: 'taken',
    messages,
    isAll: isAll === '1',
    askAfter: askAfter === '-1' ? undefined : Number(askAfter),
    fence: Number(fence),
  }
}

const MESSAGE = /^(\d+) (\d+)([ue])(".*")?$/s

function parseMessage(head: unknown, bytes: unknown): Incoming {
  const [, id, redelivered, kind, key] = MESSAGE.exec(String(head)) ?? refuse(head)
  if (!Buffer.isBuffer(bytes)) return refuse(bytes)
  return {
    id: Number(id),
    key: key === undefined ? '' : parseName(key),
    kind: kind === 'e' ? 'end' : 'user',
    bytes,
    redelivered: Number(redelivered),
  }
}

/** A key or a name, which is written as JSON because it may have lone surrogates. */
function parseName(json: string): string {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'string' ? value : refuse(json)
  } catch {
    return refuse(json)
  }
}

export function parseInspectReply(reply: unknown): QueueInfo | undefined {
  if (isText(reply, 'N')) return undefined
  const parts = /^(-?\d+) (\d+) (\d+)(?: (\d+) (\d+))?$/.exec(String(reply)) ?? refuse(reply)
  const [, count, ttlLeft, maxsize, fence, leaseLeft] = parts
  const holder = fence === undefined ? undefined : { fence: Number(fence), leaseLeft: Number(leaseLeft) }
  return { count: Math.max(0, Number(count)), ttlLeft: Number(ttlLeft), maxsize: Number(maxsize), holder }
}

export function parseMetadata(reply: unknown): Map<string, Buffer> {
  const parts: unknown[] = Array.isArray(reply) ? reply : refuse(reply)
  const metadata = new Map<string, Buffer>()
  for (let at = 0; at < parts.length; at += 2) {
    const bytes = parts[at + 1]
    metadata.set(parseName(String(parts[at])), Buffer.isBuffer(bytes) ? bytes : refuse(bytes))
  }
  return metadata
}

export function parseWriteReply(reply: unknown): 'written' | 'none' | 'full' {
  if (isText(reply, 'N')) return 'none'
  return Number(reply) === 1 ? 'written' : 'full'
}

function isText(reply: unknown, text: string): boolean {
  return Buffer.isBuffer(reply) && String(reply) === text
}

function refuse(reply: unknown): never {
  throw refusedError(`a reply that is none: ${String(reply).slice(0, 100)}`)
}
