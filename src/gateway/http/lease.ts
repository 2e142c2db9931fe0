import { MAX_HELD_LEASE, MIN_HELD_LEASE } from '../../kernel/keys.ts'
import type { RedisQueue, TakenJob } from '../../queue/index.ts'
import { inSeconds } from '../duration.ts'
import type { RouteContext } from '../env.ts'
import { Problem } from '../problem.ts'
import { duration, type Parameter } from './parameters.ts'

// The lease of a job, as clients are given it, in the header X-Lease and in JSON, and as they send it back: `TOKEN.DURATION`, the
// token of the job, and the duration of its lease in ms, which a renewal uses again. It has no other form.

/** The parameter of a lease. */
export function leaseParameter(description: string): Parameter<number> {
  return duration(description, { min: MIN_HELD_LEASE, max: MAX_HELD_LEASE })
}

export function leaseHeader(token: string, lease: number): string {
  return `${token}.${Math.ceil(lease)}`
}

/** The job that a request names by its header X-Lease, and its lease in ms; undefined without the header. @throws Problem 400 */
export function leasedJob({ req }: RouteContext, queue: RedisQueue): LeasedJob | undefined {
  const header = req.header('x-lease')
  return header === undefined ? undefined : jobOf(header, queue)
}

/** What has become of a lease that was to be renewed. */
export type Renewal = Awaited<ReturnType<TakenJob['renew']>>

/** A job, and its lease in ms. */
export interface LeasedJob {
  readonly job: TakenJob
  readonly lease: number
}

/** The job of a lease. @throws Problem 400 */
export function jobOf(text: string, queue: RedisQueue): LeasedJob {
  const [, token = '', duration = ''] = /^([\w-]+)\.(\d{1,10})$/.exec(text) ?? []
  const lease = Number(duration)
  if (lease < MIN_HELD_LEASE || lease > MAX_HELD_LEASE) throw invalidLease()
  try {
    return { job: queue.taken(token), lease }
  } catch (error) {
    throw error instanceof TypeError ? invalidLease() : error
  }
}

function invalidLease(): Problem {
  return new Problem(400, 'invalid lease', { detail: 'It is no lease of a job of this queue' })
}

/** The answer to a renewal, as JSON. @throws Problem 409 if the job is not held any more. */
export function renewalText({ id }: TakenJob, lease: number, renewal: Renewal): string {
  if (renewal === 'lost') throw leaseLost(id)
  const cancelled = renewal === 'cancelled'
  return JSON.stringify({ left: cancelled ? 0 : inSeconds(lease), cancelled })
}

/** The lease of a job is over: it was given to another, or has ended. */
export function leaseLost(id: string): Problem {
  return new Problem(409, 'lease lost', { id })
}
