import { AbortedError } from '../errors.ts'
import { systemClock } from '../kernel/time.ts'
import { describeAnswer, problemError } from './answer.ts'
import type { Gateways } from './gateways.ts'
import type { Ask } from './turns.ts'

/** A job that a gateway has handed over. */
export interface HandedJob {
  readonly queue: string
  readonly id: string
  /** The secret by which it is renewed and finished. */
  readonly lease: string
  readonly attempt: number
  readonly attempts: number | undefined
  /** When it was asked for, by the clock, ms: it was not handed over before. */
  readonly askedAt: number
  /** Undefined if it is larger than was to be read. */
  readonly text: string | undefined
}

/** The answer to a request for a job. */
export type TakeReply =
  | { readonly kind: 'job'; readonly job: HandedJob }
  | { readonly kind: 'none' }
  /** `pause`: the queue is not asked before, ms. `refusal`: the gateway will not give any, for people. */
  | { readonly kind: 'unanswered'; readonly pause: number; readonly refusal?: string }

/** A queue whose jobs a gateway refuses to give is asked again after so long, ms: a token may be put right. */
const REFUSED_PAUSE = 30_000

export function queuePath(queue: string, route = 'q'): string {
  return `/${route}/${encodeURIComponent(queue)}`
}

/** Asks for a job under a lease of `lease` ms. Never rejects. */
export async function takeJob(
  gateways: Gateways,
  { queue, wait }: Ask,
  { command, lease }: { command: string; lease: number },
  signal: AbortSignal,
): Promise<TakeReply> {
  const query = new URLSearchParams({ command, lease: `${Math.ceil(lease)}ms`, wait: `${Math.ceil(wait)}ms` })
  const path = queuePath(queue)
  const askedAt = systemClock.now()
  try {
    const answer = await gateways.request({ method: 'GET', path: `${path}?${query}`, wait, signal })
    const { status, headers, text } = answer
    const token = headers.get('x-lease')
    if (status === 200 && token !== null) {
      const attempt = numberOf(headers.get('x-job-attempt')) ?? 1
      const attempts = numberOf(headers.get('x-job-attempts'))
      const id = headers.get('x-job-id') ?? ''
      return { kind: 'job', job: { queue, id, lease: token, attempt, attempts, askedAt, text } }
    }
    if (status === 404 && ['no job', 'queue is closed'].includes(problemError(answer)))
      return { kind: 'none' }
    const refusal = status === 200 ? await putBack(gateways, path, text) : describeAnswer(answer)
    return { kind: 'unanswered', pause: REFUSED_PAUSE, refusal }
  } catch (error) {
    // The gateways themselves tell when one may be asked again.
    return { kind: 'unanswered', pause: error instanceof AbortedError ? Number.POSITIVE_INFINITY : 0 }
  }
}

/** A server that knows no leases has removed the job: it is given back, as presque's workers do. */
async function putBack(gateways: Gateways, path: string, text: string | undefined): Promise<string> {
  if (text !== undefined) await gateways.request({ method: 'PUT', path, body: text })
  return 'it gives jobs without a lease'
}

function numberOf(text: string | null): number | undefined {
  if (text === 'Infinity') return Number.POSITIVE_INFINITY
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
