import { areNumbers, type Hint } from '../../../kernel/redis/subscription.ts'
import type { Delivery, JobNotice, JobOutcome, WorkerListener } from '../store.ts'

const KINDS: Record<string, JobOutcome['kind']> = { v: 'value', e: 'error', x: 'removed' }

/** Reads a message to whoever waits for a job; undefined for one that is none. */
export function parseJobNotice({ kind, fields, body }: Hint): JobNotice | undefined {
  const outcome = KINDS[kind]
  if (outcome) {
    const [fence] = fields
    if (!areNumbers([fence])) return undefined
    return { kind: 'outcome', outcome: { kind: outcome, fence: Number(fence), bytes: body } }
  }
  if (kind === 'm') return { kind: 'outcomeReady' }
  if (kind === 'p') return { kind: 'progress', bytes: body }
  return undefined
}

/** Gives a message to the worker that it is for. `left`: ms from now to a moment of the server, 0 when it may be past. */
export function notifyWorker(
  listener: WorkerListener,
  { kind, fields, body }: Hint,
  left: (until: number) => number,
): void {
  if (kind === 'j') {
    const delivery = parseDelivery(fields, body, left)
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
  left: (until: number) => number,
): Delivery | undefined {
  const id = fields[0]
  const numbers = fields.slice(1, 7)
  if (id === undefined || numbers.length !== 6 || !areNumbers(numbers)) return undefined
  const [fence, generation, failed, stalled, until, size] = numbers.map(Number) as [
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
    failures: failed,
    stalls: stalled,
    leaseLeft: until === 0 ? 0 : left(until),
    options: body.toString('utf8', 0, size),
    payload: fields[7] === '+' ? undefined : body.toString('utf8', size),
  }
}
