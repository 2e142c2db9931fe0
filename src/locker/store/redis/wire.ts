import { FORMAT } from '../../../kernel/keys.ts'
import { areNumbers, type Hint } from '../../../kernel/redis/subscription.ts'
import {
  ANY_STALENESS,
  type Claim,
  type ClaimReply,
  type Notice,
  type Outcome,
  type StaleValue,
} from '../store.ts'

// The wire format of the scripts: claims and replies to them, stored values, messages, broadcasts.

/** Values in the reply of the claim script for each key; after the last key the server's time follows. */
export const VALUES_PER_CLAIM = 3

/** Larger numbers are not exact, in a script or here. */
const asInteger = (ms: number): number => Math.min(Math.ceil(ms), Number.MAX_SAFE_INTEGER)

/** A claim as the script reads it. `commonLease`: the lease of all plain claims of the call. */
export function encodeClaim(claim: Claim, commonLease: number): string {
  const { nonce, attempt, lease, afterFence, parkedFence, maxStaleness, acceptStaleWhileHeld, trace } = claim
  const flags =
    (claim.refresh ? 1 : 0) +
    (claim.takeover ? 0 : 2) +
    (claim.allowBypass ? 0 : 4) +
    (claim.waitOnly ? 8 : 0)
  const plain =
    attempt === 1 &&
    lease === commonLease &&
    afterFence === 0 &&
    parkedFence === 0 &&
    flags === 0 &&
    maxStaleness === ANY_STALENESS &&
    acceptStaleWhileHeld === 0 &&
    claim.expectedFence === 0 &&
    trace === ''
  if (plain) return nonce
  const numbers = [
    attempt,
    lease,
    afterFence,
    parkedFence,
    flags,
    asInteger(maxStaleness),
    asInteger(acceptStaleWhileHeld),
    claim.expectedFence,
  ]
  return `${nonce}${numbers.join(' ')} ${trace}`
}

/** The reply to one claim of a call. Undefined: the script failed for this key alone. */
export function parseClaimReply(values: readonly unknown[], index: number): ClaimReply | undefined {
  const bytes = values[index * VALUES_PER_CLAIM + 1] as Buffer | null
  const third = values[index * VALUES_PER_CLAIM + 2] as Buffer | null | unknown[]
  const { stale, more } = Array.isArray(third) ? parseStale(third) : { stale: undefined, more: third }
  const [status, a, b, c, d] = String(values[index * VALUES_PER_CLAIM]).split(' ')
  switch (status) {
    case 'V': {
      const stored = parseValue(bytes as Buffer)
      return { status: 'done', outcome: outcomeOf('value', a, b, c, stored.bytes, d, stored.tags) }
    }
    case 'U':
      return { status: 'done', outcome: outcomeOf('value', a, '0', b, bytes, '0', String(more ?? '')) }
    case 'E':
      return { status: 'done', outcome: outcomeOf('error', a, b, c, bytes, '0', String(more ?? '')), stale }
    case 'S':
      return stale && { status: 'stale', stale }
    case 'G':
      return { status: 'granted', fence: Number(a), takeover: b === '1', stale }
    case 'N':
      return { status: 'bypass', fence: Number(a), stale }
    case 'P':
      return {
        status: 'parked',
        fence: Number(a),
        leaseLeft: Number(b),
        afterFence: Number(c),
        trace: String(bytes ?? ''),
        progress: more ?? undefined,
        stale,
      }
    case 'X':
      return { status: 'lease-expired', stale }
    case 'O':
      return { status: 'overloaded' }
    case 'R':
      return { status: 'conflict' }
    case 'F':
      return { status: 'exhausted' }
    default:
      return undefined
  }
}

/** A stale value, and the field that it takes the place of in the reply: tags or progress. */
function parseStale([head, value, beside]: unknown[]): { stale: StaleValue; more: Buffer | null } {
  const [fence, staleFor, staleLeft] = String(head).split(' ').map(Number) as [number, number, number]
  const { tags, bytes } = parseValue(value as Buffer)
  return { stale: { fence, staleFor, staleLeft, bytes, tags }, more: beside as Buffer | null }
}

type Field = string | undefined

function outcomeOf(
  kind: Outcome['kind'],
  fence: Field,
  ttlLeft: Field,
  invalidated: Field,
  bytes: Buffer | null,
  staleLeft: Field,
  tags: string,
): Outcome {
  return {
    kind,
    fence: Number(fence),
    bytes: bytes ?? Buffer.alloc(0),
    ttlLeft: Number(ttlLeft),
    invalidated: invalidated === '1',
    staleLeft: Number(staleLeft),
    tags,
  }
}

/** A stored value. One plain read of its field tells all about it. */
export interface StoredValue {
  fence: number
  /** Times of the server, ms since the epoch. `staleUntil` is 0 when the value is not kept beyond `freshUntil`. */
  freshUntil: number
  staleUntil: number
  tags: string
  bytes: Buffer
}

/**
 * What stands before the bytes of a stored value, as `struct.pack` writes it: 1 if it has tags, else 0; its fence;
 * `freshUntil`; `staleUntil`. Tags follow, with their length in four bytes before them.
 */
export const VALUE_HEADER: string = '>Bddd'

export const HEADER_LENGTH: number = 25

const TAGS_LENGTH_BYTES = 4

/** Reads a stored value. One that the scripts have not written is not fresh, and has no bytes. */
export function parseValue(value: Buffer): StoredValue {
  try {
    const tagged = value.readUInt8(0) === 1
    const bytesAt = HEADER_LENGTH + (tagged ? TAGS_LENGTH_BYTES + value.readUInt32BE(HEADER_LENGTH) : 0)
    return {
      fence: value.readDoubleBE(1),
      freshUntil: value.readDoubleBE(9),
      staleUntil: value.readDoubleBE(17),
      tags: tagged ? value.toString('utf8', HEADER_LENGTH + TAGS_LENGTH_BYTES, bytesAt) : '',
      bytes: value.subarray(bytesAt),
    }
  } catch {
    return { fence: 0, freshUntil: 0, staleUntil: 0, tags: '', bytes: Buffer.alloc(0) }
  }
}

/** The outcome that a stored value is at a time of the server. Undefined when it is not fresh. */
export function freshOutcome(value: Buffer, now: number): Outcome | undefined {
  const { fence, freshUntil, staleUntil, tags, bytes } = parseValue(value)
  const ttlLeft = freshUntil - now
  // Bytes that the scripts have not written may read as any number.
  if (!(ttlLeft > 0) || !Number.isSafeInteger(fence) || !Number.isFinite(freshUntil + staleUntil))
    return undefined
  const staleLeft = Math.max(0, staleUntil - freshUntil)
  return { kind: 'value', fence, bytes, ttlLeft, invalidated: false, staleLeft, tags }
}

/** Parses a message of the scripts. Undefined for any other: anybody may publish to a channel. */
export function parseNotice({ kind, fields, body }: Hint): Notice | undefined {
  switch (kind) {
    case 'v':
    case 'e': {
      const [fence, ttlLeft, invalidated, staleLeft = '0', tagBytes = '0'] = fields
      if (!areNumbers([fence, ttlLeft, staleLeft, tagBytes])) return undefined
      const bytesAt = Number(tagBytes)
      if (bytesAt > body.length) return undefined
      const tags = body.toString('utf8', 0, bytesAt)
      const bytes = body.subarray(bytesAt)
      const outcomeKind = kind === 'v' ? 'value' : 'error'
      return {
        kind: 'outcome',
        outcome: outcomeOf(outcomeKind, fence, ttlLeft, invalidated, bytes, staleLeft, tags),
      }
    }
    case 'm':
      return { kind: 'too-large' }
    case 'f':
      return { kind: 'free' }
    case 'w':
      return { kind: 'unwanted' }
    case 'p':
      return { kind: 'progress', bytes: body }
    default:
      return undefined
  }
}

const BROADCAST = new RegExp(`^${FORMAT}(t?)(\\d{1,16}) ([^]+)$`)

/** An invalidation: of the record `name` up to the fence `number`, or of the tag `name` before the version `number`. */
export function parseBroadcast(
  message: Buffer,
): { kind: 'record' | 'tag'; name: string; number: number } | undefined {
  const [, tag, number, name] = BROADCAST.exec(message.toString()) ?? []
  if (number === undefined || name === undefined) return undefined
  return { kind: tag === '' ? 'record' : 'tag', name, number: Number(number) }
}
