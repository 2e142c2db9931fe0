import type { AttemptOutcome, Retention, Termination } from '../store.ts'
import type { Ended, JobRecord } from './job-record.ts'
import type { BookState, QueueSurroundings } from './queue-state.ts'

/** How an attempt ended, with its worker as its places name it. */
export type BookEnding = Omit<AttemptOutcome, 'worker'> & { worker: string }

/** Lists nothing. */
const UNLISTED: Retention = { count: 0, age: 0 }

/** The present generation of a job is over; another may be there to follow. */
export function settleJob(
  book: BookState,
  job: JobRecord,
  ended: Ended & { retain: Retention },
  at: QueueSurroundings,
): void {
  job.settle(ended, at.now, at.tell)
  if (job.next) {
    job.follow(job.next)
    book.line(job, false, at.now)
    return
  }
  const { ttl, outcomeRetention, retain, kind } = ended
  const listed = retain.count > 0 && retain.age > 0 && kind !== 'removed'
  job.expiresAt = at.now + Math.max(ttl, outcomeRetention, listed ? retain.age : 0)
  if (listed) book.list(job, kind === 'value' ? 'completed' : 'failed', retain, outcomeRetention, at.now)
}

/** An attempt has ended: its job is over, or waits for another attempt. */
export function endAttempt(book: BookState, job: JobRecord, ending: BookEnding, at: QueueSurroundings): void {
  const { kind } = ending
  book.times.delete(job.id)
  if (kind === 'value' || kind === 'error') return settleJob(book, job, { ...ending, kind }, at)
  job.giveBack(kind === 'retry')
  if (ending.delay > 0) book.delay(job, at.now + ending.delay)
  else if (kind === 'retry') book.line(job, false, at.now)
  else book.putFirst(job, at.now)
}

/** Ends a job from outside. False: there is nothing to end. */
export function endJob(
  book: BookState,
  job: JobRecord,
  removal: Termination,
  at: QueueSurroundings,
): boolean {
  if (removal.onlyIfUnwanted && (!job.abortUnwanted || job.waiters > 0)) return false
  if (job.over) return removal.kind === 'removed' && removeFinished(book, job, removal, at)
  const { worker, fence, id } = job
  book.times.delete(id)
  book.delayed.delete(id)
  if (worker === '') book.command(job.command).line.remove(id)
  job.due = undefined
  job.mergeNext()
  const { kind, bytes, outcomeRetention } = removal
  settleJob(book, job, { kind, bytes, outcomeRetention, ttl: 0, retain: UNLISTED, foreign: true }, at)
  if (worker !== '') at.warn(worker, { kind: 'cancelled', id, fence })
  return true
}

/** What became of a job is not to be known any more. */
function removeFinished(
  book: BookState,
  job: JobRecord,
  { outcomeRetention }: Termination,
  at: QueueSurroundings,
): boolean {
  if (!job.outcome || job.outcome.kind === 'removed') return false
  book.unlist(job)
  job.outcome = { kind: 'removed', fence: job.outcome.fence, bytes: Buffer.alloc(0), freshUntil: 0 }
  job.expiresAt = at.now + outcomeRetention
  return true
}
