import { FORMAT, ID_LENGTH } from '../../../../kernel/keys.ts'
import { refusedError } from '../../../../kernel/redis/diagnosis.ts'
import { MAX_BATCH_BYTES, type Resumed, type TopicTerms } from '../../store.ts'

/**
 * Encodes arguments of the scripts of topics, and parses their replies and what they publish.
 *
 * Messages are published as `FORMAT life first LF`, and a bundle of them: `length : message …`, with lengths in bytes.
 */

/** Several messages, which are published together. */
export interface Bundle {
  readonly count: number
  readonly bytes: Buffer
}

/** Encodes messages, of up to {@link MAX_BATCH_BYTES} in one bundle. */
export function encodeBundles(messages: readonly Buffer[]): Bundle[] {
  const bundles: Bundle[] = []
  let parts: Buffer[] = []
  let bytes = 0
  const flush = () => {
    if (parts.length > 0) bundles.push({ count: parts.length / 2, bytes: Buffer.concat(parts, bytes) })
    parts = []
    bytes = 0
  }
  for (const message of messages) {
    const head = Buffer.from(`${message.length}:`)
    const size = head.length + message.length
    if (bytes + size > MAX_BATCH_BYTES) flush()
    parts.push(head, message)
    bytes += size
  }
  flush()
  return bundles
}

/** What a subscriber receives. */
export interface Published {
  readonly life: string
  readonly first: number
  readonly messages: readonly Buffer[]
}

const HEAD = new RegExp(`^${FORMAT}([\\w-]{${ID_LENGTH}}) ([1-9]\\d{0,15})$`)
const MAX_HEAD = FORMAT.length + ID_LENGTH + 17
const LINE_FEED = 0x0a
const COLON = 0x3a
const ZERO = 0x30

/** Parses what was published; undefined if it is malformed. Anybody can publish anything. */
export function parsePublished(bytes: Buffer): Published | undefined {
  const headEnd = bytes.subarray(0, MAX_HEAD + 1).indexOf(LINE_FEED)
  const [, life, number] = HEAD.exec(bytes.toString('latin1', 0, Math.max(headEnd, 0))) ?? []
  if (life === undefined) return undefined
  const first = Number(number)
  const messages: Buffer[] = []
  let at = headEnd + 1
  while (at < bytes.length) {
    const start = at
    let length = 0
    for (; bytes[at] !== COLON; at++) {
      const digit = (bytes[at] ?? Number.NaN) - ZERO
      if (!(digit >= 0 && digit <= 9)) return undefined
      length = 10 * length + digit
    }
    const end = at + 1 + length
    if (at === start || end > bytes.length) return undefined
    messages.push(bytes.subarray(at + 1, end))
    at = end
  }
  const isSound = messages.length > 0 && Number.isSafeInteger(first + messages.length)
  return isSound ? { life, first, messages } : undefined
}

export function encodeTerms({ keep, retain, ttl }: TopicTerms): string {
  return `${keep} ${retain ? 1 : 0} ${Math.ceil(ttl)}`
}

/** @throws UnavailableError if it is none: the record was written by hand. */
export function parseNumber(reply: unknown): number {
  if (typeof reply === 'number' && Number.isSafeInteger(reply) && reply >= 0) return reply
  throw refusedError('a record with a number that is none')
}

/** @throws UnavailableError if the reply is none. */
export function parseResumed(reply: unknown): Resumed {
  const [life, last, messages] = Array.isArray(reply) ? reply : []
  if (!Buffer.isBuffer(life) || !Array.isArray(messages)) throw refusedError('a reply that is none')
  return { life: life.toString('latin1'), last: parseNumber(last), messages }
}
