import type { AttemptOutcome, Retention, Termination } from '../store.ts'
import type { GenerationEnd, JobRecord } from './job-record.ts'
import type { QueueState, TransitionContext } from './queue-state.ts'

/** How an attempt ended, its worker named by inbox and nonce. */
export type ModelAttemptOutcome = Omit<AttemptOutcome, 'worker'> & { worker: string }

/** Keeps a job out of the lists of finished jobs. */
const UNLISTED: Retention = { count: 0, age: 0 }

/** Ends the present generation of a job, and begins the next one if there is one. */
export function settleJob(
  state: QueueState,
  job: JobRecord,
  end: GenerationEnd & { retain: Retention },
  context: TransitionContext,
): void {
  state.unindex(job)
  job.settle(end, context.now, context.notifyWaiter)
  if (job.next) {
    job.startNext(job.next)
    state.pushReady(job, false, context.now)
    return
  }
  const { ttl, outcomeRetention, retain, kind } = end
  const listed = retain.count > 0 && retain.age > 0 && kind !== 'removed'
  job.expiresAt = context.now + Math.max(ttl, outcomeRetention, listed ? retain.age : 0)
  if (listed)
    state.addToListing(job, kind === 'value' ? 'completed' : 'failed', retain, outcomeRetention, context.now)
}

/** Ends an attempt: its job finishes, or gets another attempt. */
export function endAttempt(
  state: QueueState,
  job: JobRecord,
  outcome: ModelAttemptOutcome,
  context: TransitionContext,
): void {
  const { kind } = outcome
  if (kind === 'value' || kind === 'error') return settleJob(state, job, { ...outcome, kind }, context)
  job.releaseAttempt(kind === 'retry')
  if (outcome.delay > 0) state.delay(job, context.now + outcome.delay)
  else if (kind === 'retry') state.pushReady(job, false, context.now)
  else state.requeueFirst(job, context.now)
}

/** Ends a job that its worker has not ended. False: there is nothing to end. */
export function terminateJob(
  state: QueueState,
  job: JobRecord,
  termination: Termination,
  context: TransitionContext,
): boolean {
  if (termination.onlyIfUnwanted && (!job.abortUnwanted || job.waiters > 0)) return false
  if (job.finished) return termination.kind === 'removed' && forgetOutcome(state, job, termination, context)
  const { worker, fence, id } = job
  job.mergeNext()
  const { kind, bytes, outcomeRetention } = termination
  settleJob(
    state,
    job,
    { kind, bytes, outcomeRetention, ttl: 0, retain: UNLISTED, endedExternally: true },
    context,
  )
  if (worker !== '') context.notifyWorker(worker, { kind: 'cancelled', id, fence })
  return true
}

/** Forgets the outcome of a finished job. False: it is forgotten already. */
function forgetOutcome(
  state: QueueState,
  job: JobRecord,
  { outcomeRetention }: Termination,
  context: TransitionContext,
): boolean {
  if (!job.outcome || job.outcome.kind === 'removed') return false
  state.removeFromListing(job)
  job.outcome = { kind: 'removed', fence: job.outcome.fence, bytes: Buffer.alloc(0), freshUntil: 0 }
  job.expiresAt = context.now + outcomeRetention
  return true
}
