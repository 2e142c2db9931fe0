import type { Codec } from '../../../kernel/codec/codec.ts'
import { endToEnd, fromRawHeaders, isOneLine, toRawHeaders } from '../../policy/fields.ts'
import type { Plan } from '../../policy/plan.ts'
import type { VaryIndex } from '../../policy/vary.ts'
import type { HeaderFields } from '../message.ts'
import type { Reason } from './storage.ts'

/** A whole response as it is kept. */
export class StoredResponse {
  readonly status: number
  readonly statusText: string | undefined
  readonly headers: HeaderFields
  readonly plan: Plan
  /** Whether requests with credentials may have it. */
  readonly forAuthorized: boolean
  readonly body: Buffer

  constructor(
    fields: Pick<StoredResponse, 'status' | 'statusText' | 'headers' | 'plan' | 'forAuthorized' | 'body'>,
  ) {
    this.status = fields.status
    this.statusText = fields.statusText
    this.headers = fields.headers
    this.plan = fields.plan
    this.forAuthorized = fields.forAuthorized
    this.body = fields.body
  }
}

/** In place of a response that was for its own client alone. Never kept: for those who wait. */
export class Lone {
  readonly reason: Reason

  constructor(reason: Reason) {
    this.reason = reason
  }
}

/** What the records of the cache hold. */
export type Kept = StoredResponse | { readonly index: VaryIndex } | Lone

/** Everything but the body, as JSON. */
type Head =
  | { kind: 'response'; status: number; text?: string; fields: string[]; plan: Plan; authorized: boolean }
  | { kind: 'index'; index: VaryIndex }
  | { kind: 'alone'; reason: Reason }

const REASONS: ReadonlySet<unknown> = new Set<Reason>(['resource', 'asker', 'failed'])

const LENGTH = 4

/** One buffer: the length of the head, the head, the body as it is. A body that is read shares the memory of its bytes. */
export const keptCodec: Codec = {
  encode(value) {
    const kept = value as Kept
    const head = Buffer.from(JSON.stringify(headOf(kept)))
    const length = Buffer.allocUnsafe(LENGTH)
    length.writeUInt32BE(head.length)
    return Buffer.concat(kept instanceof StoredResponse ? [length, head, kept.body] : [length, head])
  },

  decode(bytes): Kept {
    const end = LENGTH + bytes.readUInt32BE(0)
    const head: unknown = JSON.parse(bytes.toString('utf8', LENGTH, end))
    if (!isHead(head)) throw new Error('no such head')
    if (head.kind === 'alone') return new Lone(head.reason)
    if (head.kind === 'index') return { index: head.index }
    const { status, text: statusText, fields, plan, authorized: forAuthorized } = head
    // What was changed in Redis must not break an answer in two either.
    const headers = endToEnd(fromRawHeaders(fields))
    const body = bytes.subarray(end)
    const length = headers['content-length']
    if (length !== undefined && length !== String(body.length)) throw new Error('cut short')
    return new StoredResponse({ status, statusText, headers, plan, forAuthorized, body })
  },

  // The body is in the bytes; what the head says is there as an object as well.
  size(value, encoded) {
    const body = value instanceof StoredResponse ? value.body.length : 0
    return encoded + 3 * (encoded - body)
  },
}

/** Whether it is what `encode` writes, as far as anything here relies on it. */
function isHead(value: unknown): value is Head {
  const head = value as Head | null
  if (head?.kind === 'alone') return REASONS.has(head.reason)
  if (head?.kind === 'index') return areTexts(head.index?.names) && typeof head.index.id === 'string'
  if (head?.kind !== 'response' || !areTexts(head.fields)) return false
  const { status, text, plan } = head
  if (text !== undefined && !isOneLine(text)) return false
  const times = [plan?.age, plan?.lifetime, plan?.keep, plan?.whileRevalidate, plan?.ifError, plan?.onDemand]
  const isTime = (time: unknown): boolean => Number.isFinite(time) && Number(time) >= 0
  return Number.isInteger(status) && status >= 200 && status <= 599 && times.every(isTime)
}

function areTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

function headOf(kept: Kept): Head {
  if (kept instanceof Lone) return { kind: 'alone', reason: kept.reason }
  if (!(kept instanceof StoredResponse)) return { kind: 'index', index: kept.index }
  return {
    kind: 'response',
    status: kept.status,
    ...(kept.statusText !== undefined && { text: kept.statusText }),
    fields: toRawHeaders(kept.headers),
    plan: kept.plan,
    authorized: kept.forAuthorized,
  }
}
