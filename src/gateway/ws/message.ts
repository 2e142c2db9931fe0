import { z } from 'zod'
import { isPrintableName, MAX_NAME } from '../../kernel/names.ts'
import { emit, hasListeners } from '../../kernel/telemetry.ts'
import { checkScope } from '../access.ts'
import { parseDuration } from '../duration.ts'
import { issueText, memberTexts } from '../http/json.ts'
import type { Scope } from '../options.ts'
import { Problem, problemOf } from '../problem.ts'
import type { Dispatch, Envelope, MessageResult, SocketSession } from './socket-session.ts'
import type { MessageId } from './subscriptions.ts'

/** One message of a client. */
export interface Received<Values> {
  readonly id: MessageId
  readonly values: Values
  /** The texts of its members, byte for byte. */
  readonly texts: ReadonlyMap<string, string>
}

/**
 * A row of the table of messages: what a message needs and is given. Dispatch, access and checks follow from it, as they do from
 * the table of routes.
 */
export interface MessageType {
  readonly type: string
  /** 'public': before the token is known. Several: one of them. */
  readonly scope: Scope | readonly Scope[] | 'public'
  /** One sentence. */
  readonly summary: string
  /** Of the audit event. Undefined: none is published. */
  readonly action?: string
  /** The schema of its members beside `id` and `type`. */
  readonly schema: z.ZodType
  /** Resolves with the JSON of the reply; undefined: null. */
  readonly handle: (
    session: SocketSession,
    message: Received<never>,
  ) => MessageResult | Promise<MessageResult>
}

interface MessageDeclaration<Shape extends z.ZodRawShape> extends Omit<MessageType, 'schema' | 'handle'> {
  readonly members?: Shape
  readonly handle: (
    session: SocketSession,
    message: Received<z.output<z.ZodObject<Shape>>>,
  ) => MessageResult | Promise<MessageResult>
}

/** Declares a message. Its handler is given the members that it names, and no message with others. */
export function message<const Shape extends z.ZodRawShape>({
  members,
  handle,
  ...rest
}: MessageDeclaration<Shape>): MessageType {
  const schema = z.strictObject({ ...members })
  return { ...rest, schema, handle: handle as MessageType['handle'] }
}

/** Dispatches messages by their table. */
export function dispatcher(types: readonly MessageType[]): Dispatch {
  const rows = new Map(types.map((row) => [row.type, row]))
  return (session, envelope) => {
    const row = rows.get(envelope.type)
    if (row?.action === undefined) return answer(session, row, envelope)
    return audited(session, row.action, envelope, () => answer(session, row, envelope))
  }
}

async function answer(
  session: SocketSession,
  row: MessageType | undefined,
  { id, value, text }: Envelope,
): Promise<MessageResult> {
  if (row?.scope !== 'public') checkOneOf(session.scopes, [row?.scope ?? []].flat())
  if (!row) throw new Problem(404, 'unknown message type')
  const { id: _id, type: _type, ...members } = value as Record<string, unknown>
  const parsed = row.schema.safeParse(members)
  if (!parsed.success)
    throw new Problem(400, 'invalid message', { detail: issueText(parsed.error).slice(0, 300) })
  const texts = memberTexts(text) ?? new Map<string, string>()
  return row.handle(session, { id, values: parsed.data as never, texts })
}

/** Handles a message, then publishes its audit event, whatever was answered, as for routes. */
async function audited(
  session: SocketSession,
  action: string,
  { value }: Envelope,
  handle: () => Promise<MessageResult>,
): Promise<MessageResult> {
  if (!hasListeners('gateway:action')) return handle()
  const { queue, sub } = value as { queue?: unknown; sub?: unknown }
  // What it names may be gone when it was handled.
  const named = typeof queue === 'string' ? queue.slice(0, MAX_NAME) : session.nameOf(sub)
  const tell = (status: number) =>
    emit('gateway:action', {
      ...{ who: session.name, action, queue: named, status },
      ...{ id: undefined, count: undefined },
    })
  try {
    const result = await handle()
    tell(200)
    return result
  } catch (error) {
    tell(problemOf(error)?.status ?? 500)
    throw error
  }
}

/** @throws Problem 403 unless one of the scopes that would do is there. */
function checkOneOf(scopes: readonly Scope[], needed: readonly Scope[]): void {
  const [first] = needed
  if (first !== undefined && !needed.some((scope) => scopes.includes(scope))) checkScope(scopes, first)
}

/** A name of a queue, command, topic, service or event. */
export const name: z.ZodType<string> = z
  .string()
  .refine(isPrintableName, `Expected 1 to ${MAX_NAME} characters without control characters`)

/** A duration, in ms: seconds, or a text with a unit. */
export function duration(min: number, max: number): z.ZodType<number> {
  const given = z.union([z.number(), z.string()]).meta({ title: 'a duration' })
  return given.transform((value, context) => {
    const ms = parseDuration(String(value), { min, max })
    if (ms !== undefined) return ms
    context.addIssue({
      code: 'custom',
      message: `Expected seconds, or a text with ms, s, m, h or d, from ${min} ms to ${max} ms`,
    })
    return z.NEVER
  })
}

/** Any JSON: it was parsed already. */
export const json: z.ZodType<unknown> = z.unknown()
