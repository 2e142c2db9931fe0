import { FORMAT, ID_LENGTH, isAddress } from '../../../kernel/keys.ts'
import { areNumbers } from '../../../kernel/redis/subscription.ts'
import type { Addressed, Announcement, Dispatch, DispatchReply, Health, Message } from '../store.ts'

/**
 * Encodes arguments of the scripts of services, and parses their replies and what they announce.
 *
 * Announcements are broadcast: FORMAT s letter, the key prefix, a JSON array of strings
 *   u, d   service process info     up, down
 *   s      service setting
 *   r      process                  resumed
 */

/** Begins a message of several messages. */
const BUNDLE = Buffer.from(`${FORMAT}*`)

/** A longer announcement is dropped, bytes. Anybody can publish one. */
const MAX_ANNOUNCEMENT = 256 * 1024

/** A message without its address. */
export function encodeMessage(message: Message): Buffer {
  return Buffer.concat([Buffer.from(headOf(message)), message.body])
}

function headOf({ kind, fields }: Message): string {
  return `${[kind, ...fields].join(' ')}\n`
}

/**
 * The messages to each inbox as one, in the format of subscription.ts. They are joined here and not by the script: Lua copies
 * and hashes every string that it makes.
 */
export function encodeBundles(messages: Iterable<Addressed>): Map<string, Buffer> {
  const inboxes = new Map<string, Buffer[]>()
  for (const { to, message } of messages) {
    if (!isAddress(to)) continue
    const inbox = to.slice(0, ID_LENGTH)
    const parts = inboxes.get(inbox) ?? [BUNDLE]
    inboxes.set(inbox, parts)
    const head = to.slice(ID_LENGTH) + headOf(message)
    const length = Buffer.byteLength(head) + message.body.length
    parts.push(Buffer.from(`${length}:${head}`), message.body)
  }
  const bundles = new Map<string, Buffer>()
  for (const [inbox, parts] of inboxes) bundles.set(inbox, Buffer.concat(parts))
  return bundles
}

/** The arguments of a message that a script puts a number into: kind, further fields, body. */
export function encodeNumbered({ kind, fields, body }: Message): [string, string, Buffer] {
  return [kind, fields.map((field) => ` ${field}`).join(''), body]
}

/** The processes that a call is dealt to, and those that it is not. */
export function encodeTargets({ preferred, avoided }: Dispatch): string {
  return [isAddress(preferred) ? preferred : '-', ...avoided.filter(isAddress)].join(' ')
}

/** Parses the reply to one call. A string is an error of this call alone. */
export function parseDispatchReply(line: string | undefined): DispatchReply | string {
  if (line === 'N') return { kind: 'none' }
  if (line === 'F') return { kind: 'full' }
  const [, process, leaseLeft] = /^D (\S+) (-?\d+)$/.exec(line ?? '') ?? []
  if (process !== undefined) return { kind: 'dealt', process, leaseLeft: Number(leaseLeft) }
  return line?.startsWith('E') ? line.slice(1) : 'a reply that is none'
}

export function parseHealth(reply: unknown): Health {
  const text = String(reply)
  if (text === 'L') return 'lost'
  return areNumbers([text]) ? Number(text) : 'unknown'
}

const LETTERS = { up: 'u', down: 'd', setting: 's', resumed: 'r' } as const

/** What an announcement says, as JSON. */
export function encodeAnnouncement(prefix: string, announcement: Announcement): string {
  const { kind } = announcement
  const values =
    kind === 'resumed'
      ? [announcement.process]
      : kind === 'setting'
        ? [announcement.service, announcement.name]
        : [announcement.service, announcement.process, announcement.info]
  return `${FORMAT}s${LETTERS[kind]} ${prefix} ${JSON.stringify(values)}`
}

/** Parses a broadcast; undefined if it is no announcement for this prefix. */
export function parseAnnouncement(prefix: string, message: Buffer): Announcement | undefined {
  if (message.length > MAX_ANNOUNCEMENT || message.toString('latin1', 0, 2) !== `${FORMAT}s`) return undefined
  const head = ` ${prefix} `
  if (message.toString('latin1', 3, 3 + head.length) !== head) return undefined
  const values = parseTexts(message.toString('utf8', 3 + head.length))
  const [first = '', second = '', third = ''] = values ?? []
  switch (`${message.toString('latin1', 2, 3)}${values?.length}`) {
    case 'u3':
    case 'd3': {
      const kind = message[2] === LETTERS.up.charCodeAt(0) ? 'up' : 'down'
      return isAddress(second) ? { kind, service: first, process: second, info: third } : undefined
    }
    case 's2':
      return { kind: 'setting', service: first, name: second }
    case 'r1':
      return isAddress(first) ? { kind: 'resumed', process: first } : undefined
    default:
      return undefined
  }
}

/** Parses a JSON array of strings; undefined if it is none. */
function parseTexts(json: string): string[] | undefined {
  try {
    const values: unknown = JSON.parse(json)
    return Array.isArray(values) && values.every((value) => typeof value === 'string') ? values : undefined
  } catch {
    return undefined
  }
}
