/**
 * What Services objects say to each other. A message has a kind, fields without blanks, and a body; anybody can forge one,
 * so everything is checked when it is read.
 *
 * To a process that serves, in the order of a call's life:
 *   c   number id from left attempt turn mode service event trace    a call; body: its arguments
 *       number: of the call among those dealt to this process; left: ms until its deadline, '-' for none;
 *       turn: how often the call was dispatched; mode: the first letter of a CallMode
 *   a   id                             the caller aborts it
 *   k   id received                    the caller has taken so many chunks of a streamed reply, and wants more
 *   q   from age id.turn …             what became of these calls, the oldest of which was made `age` ms ago?
 *   s   number service lapses          so many calls of the service were dealt before this message: some may be lost;
 *                                      lapses: how often the lease of the process had ended when it was sent
 *   w   service                        the last message about a service that this process does not serve any more
 *
 * To a process that calls; `process` is the address of the sender:
 *   v   id process [chunks]            the result in the body; the end of a streamed reply after so many chunks
 *   e   id process [chunks]            the handler failed: a RemoteFailure
 *   n   id process reason turn         the handler was not called by this dispatch, and will not be
 *   l   id process                     the process does not run the call any more, or has forgotten its reply
 *   r   process id …                   these calls are running
 *   p   id process                     progress
 *   d   id process index               a chunk of a streamed reply
 *
 * To any:
 *   m   from id                        a message of the user
 *   i   id from                        a ping
 *   o   id                             the answer to either
 *   x                                  nothing: whether somebody listens is all that is asked
 */
import { ID_LENGTH, isAddress } from '../kernel/keys.ts'
import type { Message } from './store/store.ts'

const EMPTY = Buffer.alloc(0)

const ID = new RegExp(`^[\\w-]{${ID_LENGTH}}$`)

/** Calls that one query asks about at most. */
export const MAX_QUERY = 500

/** Chunks of a streamed reply that are sent before the caller has taken them. */
export const WINDOW = 64

/** A caller that wants more chunks says so at least this often, ms. */
export const CREDIT_INTERVAL_MS = 5_000

/**
 * Why a call was not run: there is no such event; the process closes, is full, or has lost its lease; the call is too late,
 * or was lost on the way; its arguments cannot be decoded.
 */
const REFUSALS = ['event', 'closing', 'full', 'lease', 'late', 'lost', 'args'] as const
export type Refusal = (typeof REFUSALS)[number]

/** `reply`: one result; `notify`: none; `stream`: chunks; `broadcast`: one result from each process. */
export type CallMode = 'reply' | 'notify' | 'stream' | 'broadcast'
const MODES: Record<string, CallMode> = { r: 'reply', n: 'notify', s: 'stream', b: 'broadcast' }

/** What is said of one dispatch of a call. */
interface CallHead {
  readonly id: string
  /** Address of the caller. */
  readonly from: string
  /** ms until its deadline. */
  readonly left: number
  /** 1 for the first try. */
  readonly attempt: number
  /** 1 for the first dispatch: a call that is refused is dispatched again. */
  readonly turn: number
}

/** What all dispatches of a call have in common. */
interface CallContent {
  readonly mode: CallMode
  readonly service: string
  readonly event: string
  readonly trace: string | undefined
  /** Encoded. */
  readonly args: Buffer
}

/** A call as the process that it was dealt to receives it. */
export interface DealtCall extends CallHead, CallContent {
  readonly number: number
}

/** A longer time than this is as good as none, ms. */
const MAX_LEFT = 1e15

export function numberOf(field: string | undefined): number | undefined {
  return field !== undefined && /^\d{1,16}$/.test(field) ? Number(field) : undefined
}

function textOf(field: string | undefined): string | undefined {
  try {
    return field === undefined ? undefined : decodeURIComponent(field)
  } catch {
    return undefined
  }
}

function isId(text: string | undefined): text is string {
  return text !== undefined && ID.test(text)
}

/** The message that a call is dispatched with: its number is added when it is dealt. */
export function callMessage({ id, from, left, attempt, turn }: CallHead, content: CallContent): Message {
  const until = left < MAX_LEFT ? String(Math.ceil(left)) : '-'
  const service = encodeURIComponent(content.service)
  const event = encodeURIComponent(content.event)
  const fields = [id, from, until, String(attempt), String(turn), content.mode.charAt(0), service, event]
  if (content.trace !== undefined) fields.push(encodeURIComponent(content.trace))
  return { kind: 'c', fields, body: content.args }
}

export function parseCall({ fields, body }: Message): DealtCall | undefined {
  const [count, id, from, until, tries, dispatches, letter = '', name, handled, context] = fields
  const [number, attempt, turn] = [numberOf(count), numberOf(tries), numberOf(dispatches)]
  const left = until === '-' ? Number.POSITIVE_INFINITY : numberOf(until)
  const mode = MODES[letter]
  const [service, event, trace] = [textOf(name), textOf(handled), textOf(context)]
  if (number === undefined || attempt === undefined || turn === undefined) return undefined
  if (left === undefined || mode === undefined || service === undefined || event === undefined)
    return undefined
  if (!isId(id) || !isAddress(from)) return undefined
  return { number, id, from, left, attempt, turn, mode, service, event, trace, args: body }
}

export function abortMessage(id: string): Message {
  return { kind: 'a', fields: [id], body: EMPTY }
}

export function creditMessage(id: string, received: number): Message {
  return { kind: 'k', fields: [id, String(received)], body: EMPTY }
}

/** A call that a question is about, and its last dispatch. */
export interface Queried {
  readonly id: string
  readonly turn: number
}

/** A question about calls, the oldest of which was dispatched `age` ms ago. */
export function queryMessage(from: string, age: number, calls: readonly Queried[]): Message {
  const queried = calls.map(({ id, turn }) => `${id}.${turn}`)
  return { kind: 'q', fields: [from, String(Math.ceil(age)), ...queried], body: EMPTY }
}

/** A question about calls, the oldest of which was dispatched at most `age` ms ago. */
export function parseQuery({
  fields,
}: Message): { from: string; age: number; calls: readonly Queried[] } | undefined {
  const [from, since, ...queried] = fields
  const age = numberOf(since)
  if (!isAddress(from) || age === undefined || queried.length > MAX_QUERY) return undefined
  const calls: Queried[] = []
  for (const text of queried) {
    const [id, dispatches] = text.split('.')
    const turn = numberOf(dispatches)
    if (!isId(id) || turn === undefined) return undefined
    calls.push({ id, turn })
  }
  return { from, age, calls }
}

export function markMessage(service: string, lapses: number): Message {
  return { kind: 's', fields: [encodeURIComponent(service), String(lapses)], body: EMPTY }
}

export function parseMark({
  fields: [count, name, ended],
}: Message): { dealt: number; service: string; lapses: number } | undefined {
  const [dealt, service, lapses] = [numberOf(count), textOf(name), numberOf(ended)]
  if (dealt === undefined || service === undefined || lapses === undefined) return undefined
  return { dealt, service, lapses }
}

export function lastMessage(service: string): Message {
  return { kind: 'w', fields: [encodeURIComponent(service)], body: EMPTY }
}

export function serviceOf({ fields: [name] }: Message): string | undefined {
  return textOf(name)
}

/** The end of a call. `chunks`: how many were sent before it, of a streamed reply. */
export function resultMessage(id: string, process: string, body: Buffer, chunks?: number): Message {
  return { kind: 'v', fields: [id, process, ...countField(chunks)], body }
}

export function failureMessage(id: string, process: string, body: Buffer, chunks?: number): Message {
  return { kind: 'e', fields: [id, process, ...countField(chunks)], body }
}

function countField(chunks: number | undefined): string[] {
  return chunks === undefined ? [] : [String(chunks)]
}

export function refusalMessage({ id, turn }: Queried, process: string, reason: Refusal): Message {
  return { kind: 'n', fields: [id, process, reason, String(turn)], body: EMPTY }
}

export function forgottenMessage(id: string, process: string): Message {
  return { kind: 'l', fields: [id, process], body: EMPTY }
}

export function runningMessage(process: string, ids: readonly string[]): Message {
  return { kind: 'r', fields: [process, ...ids], body: EMPTY }
}

export function progressMessage(id: string, process: string, body: Buffer): Message {
  return { kind: 'p', fields: [id, process], body }
}

export function chunkMessage(id: string, process: string, index: number, body: Buffer): Message {
  return { kind: 'd', fields: [id, process, String(index)], body }
}

/** What a process that serves says about one call. */
export type Answer =
  | { readonly kind: 'result' | 'failure'; readonly chunks: number; readonly body: Buffer }
  | { readonly kind: 'refused'; readonly reason: Refusal; readonly turn: number }
  | { readonly kind: 'forgotten' | 'running' }
  | { readonly kind: 'progress'; readonly body: Buffer }
  | { readonly kind: 'chunk'; readonly index: number; readonly body: Buffer }

const FORGOTTEN: Answer = { kind: 'forgotten' }
const RUNNING: Answer = { kind: 'running' }

function answerOf({ kind, fields: [, , third, fourth], body }: Message): Answer | undefined {
  const count = third === undefined ? 0 : numberOf(third)
  if (kind === 'v' || kind === 'e')
    return count === undefined
      ? undefined
      : { kind: kind === 'v' ? 'result' : 'failure', chunks: count, body }
  if (kind === 'n') {
    const turn = numberOf(fourth)
    const reason = REFUSALS.find((each) => each === third)
    return reason && turn !== undefined ? { kind: 'refused', reason, turn } : undefined
  }
  if (kind === 'd') return count === undefined ? undefined : { kind: 'chunk', index: count, body }
  if (kind === 'p') return { kind: 'progress', body }
  return kind === 'l' ? FORGOTTEN : undefined
}

/** Calls `heard` with each answer of a message: the id of the call, the process, what it says. */
export function readAnswers(
  message: Message,
  heard: (id: string, process: string, answer: Answer) => void,
): void {
  const { fields } = message
  if (message.kind === 'r') {
    const [process, ...ids] = fields
    if (isAddress(process) && ids.length <= MAX_QUERY)
      for (const id of ids) if (isId(id)) heard(id, process, RUNNING)
    return
  }
  const [id, process] = fields
  const answer = answerOf(message)
  if (answer && isId(id) && isAddress(process)) heard(id, process, answer)
}

export function userMessage(id: string, from: string, body: Buffer): Message {
  return { kind: 'm', fields: [from, id], body }
}

export function parseUserMessage({ fields: [from, id] }: Message): { id: string; from: string } | undefined {
  return isId(id) && isAddress(from) ? { id, from } : undefined
}

export function pingMessage(id: string, from: string): Message {
  return { kind: 'i', fields: [id, from], body: EMPTY }
}

export function parsePing({ fields: [id, from] }: Message): { id: string; from: string } | undefined {
  return isId(id) && isAddress(from) ? { id, from } : undefined
}

export function pongMessage(id: string): Message {
  return { kind: 'o', fields: [id], body: EMPTY }
}

/** A message that only asks whether somebody listens. */
export const PROBE: Message = { kind: 'x', fields: [], body: EMPTY }
