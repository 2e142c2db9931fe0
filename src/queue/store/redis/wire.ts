import { areNumbers, type Hint } from '../../../kernel/redis/subscription.ts'
import { stateOf } from '../job-state.ts'
import type { CommandLoad, QueueLoad } from '../load.ts'
import type {
  AttemptOutcome,
  Counts,
  Delivery,
  JobNotice,
  JobOutcome,
  JobSnapshot,
  OutcomeReply,
  PostReply,
  Submission,
  SubmitReply,
  WorkerListener,
} from '../store.ts'
import type { QueueTotals } from '../totals.ts'

/**
 * Encodes arguments of the queue's scripts, and parses their replies and messages.
 *
 * Messages to a waiter: kind, fields, then the body after a line feed
 *   v, e, x   fence                   the outcome: value, error, removed
 *   m                                 the outcome must be queried
 *   p                                 progress
 *
 * Messages to a worker:
 *   j         id fence generation failures stalls leaseEnd optionsSize [+]; body: options and payload
 *             leaseEnd is 0 if the attempt must be accepted before it starts; with '+' the payload must be read
 *   c         id fence                the job was cancelled or removed
 *   t         ms                      a job falls due
 *   s                                 the store requests the capacity of the worker
 *   w                                 the worker was removed: this is its last message
 */

/** Flags of a submission; they add up. */
export const FLAGS = {
  awaited: 1,
  join: 2,
  rerun: 4,
  lifo: 8,
  abortUnwanted: 16,
  requiresWorker: 32,
  exclusive: 64,
} as const

/** What the submit script reads of a submission, beside its nonce, payload and options. */
export function encodeTerms({
  awaited,
  conflict,
  lifo,
  abortUnwanted,
  requiresWorker,
  delay,
  priority,
}: Submission): string {
  const flags =
    (awaited ? FLAGS.awaited : 0) +
    (conflict === 'join' ? FLAGS.join : 0) +
    (conflict === 'rerun' ? FLAGS.rerun : 0) +
    (conflict === 'exclusive' ? FLAGS.exclusive : 0) +
    (lifo ? FLAGS.lifo : 0) +
    (abortUnwanted ? FLAGS.abortUnwanted : 0) +
    (requiresWorker ? FLAGS.requiresWorker : 0)
  return `${flags} ${delay} ${priority}`
}

const END_CODES: Record<AttemptOutcome['kind'], string> = { value: 'v', error: 'e', retry: 'r', requeue: 'h' }

/** What the finish script reads of an attempt's outcome, beside its fence, worker and bytes. */
export function encodeOutcome({
  kind,
  ttl,
  outcomeRetention,
  delay,
  retain,
  releasesSlot,
}: AttemptOutcome): string {
  const { count, age } = retain
  return `${END_CODES[kind]} ${ttl} ${outcomeRetention} ${delay} ${count} ${age} ${releasesSlot ? 1 : 0}`
}

export function toText(value: unknown): string {
  return value === null || value === undefined ? '' : String(value)
}

function toBytes(value: unknown): Buffer {
  return Buffer.isBuffer(value) ? value : Buffer.from(toText(value))
}

/** A number; undefined for the text of an error. */
export function toCode(value: unknown): number | undefined {
  const code = Number(toText(value))
  return Number.isInteger(code) ? code : undefined
}

const OUTCOME_KINDS: Record<string, JobOutcome['kind']> = { v: 'value', e: 'error', x: 'removed' }

/** Parses the reply to a submission. A string is the error of this submission alone. */
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
      const kind = text[0] === 'V' ? 'value' : 'error'
      return { status: 'cached', generation, outcome: { kind, fence, bytes: toBytes(bytes) } }
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

/** Parses the reply to a post. `commands`: those of its jobs, as the call has numbered them. */
export function parsePostReply(reply: unknown, commands: readonly string[]): PostReply {
  const [code, number, nonce = ''] = toText(reply).split(' ')
  if (code === 'X') return { status: 'conflict' }
  if (code === 'U') return { status: 'unknown', command: commands[Number(number) - 1] ?? '' }
  return { status: code === 'C' ? 'created' : 'joined', nonce, generation: Number(number) }
}

export function parseOutcomeReply(head: unknown, bytes: unknown): OutcomeReply {
  const [code = '', fence] = toText(head).split(' ')
  const kind = OUTCOME_KINDS[code.toLowerCase()]
  if (kind) return { status: 'settled', outcome: { kind, fence: Number(fence), bytes: toBytes(bytes) } }
  return { status: code === 'P' ? 'pending' : 'gone' }
}

export function parseSnapshot(id: string, reply: unknown): JobSnapshot | undefined {
  if (!Array.isArray(reply)) return undefined
  const values: unknown[] = reply
  const [command, generation, settledGeneration, code, worker, dueIn] = values.slice(0, 6).map(toText)
  const [failures, stalls, options, progress, fence, outcomeFence, waiters, payload, bytes] = values.slice(6)
  const kind = OUTCOME_KINDS[code ?? '']
  const finished = Number(settledGeneration) >= Number(generation)
  const outcome =
    finished && kind ? { kind, fence: Number(toText(outcomeFence)), bytes: toBytes(bytes) } : undefined
  const state = stateOf(outcome?.kind, worker !== '', dueIn !== '')
  return {
    id,
    command: command ?? '',
    state,
    payload: toText(payload),
    options: toText(options),
    generation: Number(generation),
    failures: Number(failures),
    stalls: Number(stalls),
    fence: Number(toText(fence)),
    progress: Buffer.isBuffer(progress) ? progress : undefined,
    outcome,
    waiters: Number(waiters),
    dueIn: state === 'delayed' ? Number(dueIn) : undefined,
  }
}

/** The fields of the totals of a queue, as prelude.ts lists them. */
export const TOTAL_FIELDS: readonly string[] = ['s', 'v', 'e', 'V', 'E', 'a', 'R', 'H']

/** Parses the values of {@link TOTAL_FIELDS}. */
export function parseTotals(reply: unknown): QueueTotals {
  const values = (reply as unknown[]).map((value) => toCode(value) ?? 0)
  const [submitted = 0, value = 0, error = 0, takenValue = 0, takenError = 0, accepted = 0, takenRetry = 0] =
    values
  const [returned = 0] = values.slice(7)
  return {
    submitted,
    completed: value + takenValue,
    failed: error + takenError,
    taken: accepted + takenValue + takenError + takenRetry,
    returned,
  }
}

/** Undefined for ''. */
function optionalNumber(text = ''): number | undefined {
  return text === '' ? undefined : Number(text)
}

/** Parses the reply to `load`. */
export function parseLoad(reply: unknown): QueueLoad {
  const values = reply as unknown[]
  const [dueIn, complete, totals, paused, rows] = values.slice(5)
  const names = new Map<string, string>()
  const commands = (rows as unknown[][]).map(([segment, name, ...row]): CommandLoad => {
    names.set(toText(segment), toText(name))
    const [waiting, delayed, active, failed, id, age] = row.map(toText)
    return {
      command: toText(name),
      waiting: Number(waiting),
      delayed: optionalNumber(delayed),
      active: optionalNumber(active),
      failed: optionalNumber(failed),
      first: id ? { id, age: Number(age) } : undefined,
    }
  })
  return {
    counts: parseCounts(values),
    totals: parseTotals(totals),
    paused: (paused as unknown[]).map(toText).map((segment) => names.get(segment) ?? segment),
    commands,
    dueIn: optionalNumber(toText(dueIn)),
    complete: Number(complete) === 1,
  }
}

/** Parses the reply to `counts`, with which that to `load` begins. */
export function parseCounts(reply: unknown): Counts {
  const [waiting = 0, delayed = 0, active = 0, completed = 0, failed = 0] = (reply as unknown[]).map(Number)
  return { waiting, delayed, active, completed, failed }
}

/** Parses a message to a waiter; undefined if it is none. Any client of Redis may have sent it. */
export function parseJobNotice({ kind: code, fields, body }: Hint): JobNotice | undefined {
  const kind = OUTCOME_KINDS[code]
  if (kind) {
    const [fence] = fields
    if (!areNumbers([fence])) return undefined
    return { kind: 'outcome', outcome: { kind, fence: Number(fence), bytes: body } }
  }
  if (code === 'm') return { kind: 'outcomeReady' }
  if (code === 'p') return { kind: 'progress', bytes: body }
  return undefined
}

/** Gives a message to its worker. `remaining`: ms until a time of the server; 0 if that may have passed. */
export function notifyWorker(
  listener: WorkerListener,
  { kind, fields, body }: Hint,
  remaining: (until: number) => number,
): void {
  if (kind === 'j') {
    const delivery = parseDelivery(fields, body, remaining)
    if (delivery) listener.onDelivery(delivery)
  } else if (kind === 'c') {
    const [id, fence] = fields
    if (id !== undefined && areNumbers([fence])) listener.onCancelled(id, Number(fence))
  } else if (kind === 't') {
    if (areNumbers(fields.slice(0, 1))) listener.onDue(Number(fields[0]))
  } else if (kind === 's') {
    listener.onCapacityRequested()
  }
}

function parseDelivery(
  fields: string[],
  body: Buffer,
  remaining: (until: number) => number,
): Delivery | undefined {
  const id = fields[0]
  const numbers = fields.slice(1, 7)
  if (id === undefined || numbers.length !== 6 || !areNumbers(numbers)) return undefined
  const [fence, generation, failures, stalls, leaseEnd, optionsSize] = numbers.map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  return {
    id,
    fence,
    generation,
    failures,
    stalls,
    leaseLeft: leaseEnd === 0 ? 0 : remaining(leaseEnd),
    options: body.toString('utf8', 0, optionsSize),
    payload: fields[7] === '+' ? undefined : body.toString('utf8', optionsSize),
  }
}
