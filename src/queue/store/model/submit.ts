import { PENDING_JOB_TTL, type Submission, type SubmitReply } from '../store.ts'
import type { CommandBook } from './command-state.ts'
import type { Dispatch } from './dispatch.ts'
import { JobRecord } from './job-record.ts'
import type { BookState, QueueSurroundings } from './queue-state.ts'

/** One who submits, and everything around it. */
export interface Submitting {
  book: BookState
  submission: Submission
  /** Inbox and nonce of who submits. */
  park: string
  dispatch: Dispatch
  at: QueueSurroundings
}

/** Joins the job that is there, is served what became of it, or creates it. Repeated, it has the effect of one. */
export function submitJob(of: Submitting): SubmitReply {
  const { book, submission, at } = of
  const { id, nonce, command, conflict, requiresWorker: known } = submission
  const job = book.job(id, at.now)
  if (job && !job.over) return join(job, of)
  // Sent twice, and over meanwhile: it is not run again.
  const again = job?.creator === nonce
  if (job && again && !submission.awaited) return { status: 'created', generation: job.generation }
  const found = job?.fresh(at.now)
  if (job && found) {
    const { kind, fence, bytes } = found
    const outcome = { kind, fence, bytes }
    if (isMeant(job, submission)) return { status: 'cached', generation: job.settled, outcome }
    if (conflict !== 'rerun') return { status: 'conflict' }
  }
  if (job && again) return { status: 'created', generation: job.generation }
  if (known && book.command(command).workersAt(at.now).length === 0) return { status: 'unknown' }
  return { status: 'created', generation: create(job, of) }
}

/** Whether the present generation of a job is what is submitted. */
function isMeant(job: JobRecord, { conflict, payload }: Submission): boolean {
  return conflict === 'join' || job.payload === payload
}

function join(job: JobRecord, { submission, park, at }: Submitting): SubmitReply {
  const { nonce, awaited: waits, payload, options, conflict, abortUnwanted } = submission
  const { next } = job
  const parked = job.parks.get(park)
  if (job.creator === nonce) return { status: 'created', generation: job.generation }
  if (next?.creator === nonce) return { status: 'created', generation: next.generation }
  if (parked !== undefined) return { status: 'joined', generation: parked }
  if (waits && job.parks.size >= at.maxParked) return { status: 'overloaded' }
  // What is to follow is the newest, even if that is what runs now.
  const isPresent = isMeant(job, submission) && !(next && conflict === 'rerun')
  const isNext = !isPresent && next?.payload === payload
  if (!isPresent && !isNext) {
    if (conflict !== 'rerun') return { status: 'conflict' }
    const generation = next?.generation ?? Math.max(job.generation + 1, at.micros)
    job.next = { generation, payload, options, creator: nonce }
  }
  const generation = isPresent ? job.generation : (job.next?.generation ?? 0)
  if (waits) job.parks.set(park, generation)
  // One who did not ask for it to end unwanted counts on it, waiting or not.
  if (!abortUnwanted) job.abortUnwanted = false
  return { status: isPresent || next ? 'joined' : 'created', generation }
}

/** Begins a generation; returns its number. */
function create(before: JobRecord | undefined, of: Submitting): number {
  const { book, submission, park, at } = of
  const generation = Math.max((before?.generation ?? 0) + 1, at.micros)
  const job = before ?? new JobRecord(submission, generation)
  if (before) {
    book.unlist(before)
    before.resubmit(submission, generation)
  }
  job.expiresAt = at.now + PENDING_JOB_TTL
  book.add(job)
  const { priority, awaited: waits, delay } = submission
  if (waits) job.first = park
  if (priority > 0) job.rank = { priority, micros: at.micros, turn: at.turn }
  const command = book.command(submission.command)
  if (delay > 0) postpone(job, command, of)
  else place(job, command, of)
  return generation
}

/** It is to run later: a worker is told, so that somebody has the timer. */
function postpone(job: JobRecord, command: CommandBook, { book, submission, at }: Submitting): void {
  book.delay(job, at.now + submission.delay)
  const [worker] = command.workersAt(at.now)
  if (worker !== undefined) at.warn(worker, { kind: 'due', ms: submission.delay })
}

/** It runs now, or waits in line. */
function place(job: JobRecord, command: CommandBook, { book, submission, dispatch, at }: Submitting): void {
  const worker = command.take()
  if (worker !== undefined) return dispatch.hand(job, worker)
  book.line(job, submission.lifo, at.now)
  if (command.line.length > 1) return
  if (command.workersAt(at.now).length === 0) at.call()
}
