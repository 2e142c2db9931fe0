import type { TopicPosition } from '../pubsub/subscription.ts'
import type { MessageInfo } from '../queue/events.ts'
import type { RemoteProblem } from './failures.ts'

// What a gateway sends. It is hostile: what is used of it is checked here, once. Unknown members, events and subscriptions are
// those of a later gateway, or of a subscription that has ended: they are ignored.

export type CallId = string | number

/** What comes for a subscription. */
export type Push =
  /** Of a queue or a channel. */
  | {
      readonly kind: 'message'
      readonly message: unknown
      readonly info: MessageInfo & { readonly id: number }
    }
  | { readonly kind: 'event'; readonly event: string; readonly on: boolean }
  /** Of a topic, with the position of the message. */
  | { readonly kind: 'topic'; readonly message: unknown; readonly position: TopicPosition | undefined }
  /** Of a topic: messages are missing before the position; `missed`: so many, if that is known. */
  | {
      readonly kind: 'gap'
      readonly missed: number | undefined
      readonly position: TopicPosition | undefined
    }
  | { readonly kind: 'other' }

/** A message of a gateway. */
export type GatewayMessage =
  | { readonly kind: 'push'; readonly sub: CallId; readonly push: Push }
  | { readonly kind: 'answer'; readonly id: CallId; readonly ok: unknown }
  | { readonly kind: 'problem'; readonly id: CallId; readonly problem: RemoteProblem }

type Members = Readonly<Record<string, unknown>>

/** Undefined unless it is a text that is a message in its form. Never throws. */
export function readGatewayMessage(data: unknown): GatewayMessage | undefined {
  const members = typeof data === 'string' ? parse(data) : undefined
  if (!isObject(members)) return undefined
  const { id, sub, ok, problem } = members
  if (sub !== undefined) {
    const push = isId(sub) ? readPush(members) : undefined
    return push && { kind: 'push', sub: sub as CallId, push }
  }
  if (!isId(id)) return undefined
  if (problem !== undefined) return isProblem(problem) ? { kind: 'problem', id, problem } : undefined
  return ok === undefined ? undefined : { kind: 'answer', id, ok }
}

function readPush(members: Members): Push | undefined {
  const { message, gap, info, event, on } = members
  if (event !== undefined) {
    const isEvent = typeof event === 'string' && isOptional('boolean', on)
    return isEvent ? { kind: 'event', event, on: on === true } : undefined
  }
  if (info !== undefined) {
    return message !== undefined && isInfo(info) ? { kind: 'message', message, info } : undefined
  }
  if (message !== undefined || gap !== undefined) return readTopicPush(members)
  return { kind: 'other' }
}

function readTopicPush({ message, gap, life, number }: Members): Push | undefined {
  const given = { life, number }
  const position = isPosition(given) ? given : undefined
  if (!position && (life !== undefined || number !== undefined)) return undefined
  if (gap === undefined) return { kind: 'topic', message, position }
  return gap === null || isCount(gap) ? { kind: 'gap', missed: gap ?? undefined, position } : undefined
}

function isInfo(info: unknown): info is MessageInfo & { id: number } {
  if (!isObject(info)) return false
  const { id, redelivered, key, fence } = info
  return isCount(id) && isCount(redelivered) && isOptional('string', key) && isOptional('number', fence)
}

function isProblem(problem: unknown): problem is RemoteProblem {
  if (!isObject(problem)) return false
  const { status, error, detail, code } = problem
  return isOptional('number', status) && [error, detail, code].every((text) => isOptional('string', text))
}

function isId(value: unknown): value is CallId {
  return typeof value === 'string' || Number.isSafeInteger(value)
}

function isOptional(type: 'string' | 'number' | 'boolean', value: unknown): boolean {
  return value === undefined || typeof value === type
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

// The forms of `ok`, by the message that it answers.

/** An id, or a number of things. */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

export function isNumberOrNull(value: unknown): value is number | null {
  return value === null || (typeof value === 'number' && Number.isFinite(value))
}

export function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string'
}

export function isPosition(value: unknown): value is TopicPosition {
  if (!isObject(value)) return false
  const { life, number } = value
  return typeof life === 'string' && isCount(number)
}

export function isPositionOrNull(value: unknown): value is TopicPosition | null {
  return value === null || isPosition(value)
}

export function isObjectOrNull(value: unknown): value is Record<string, unknown> | null {
  return value === null || isObject(value)
}
