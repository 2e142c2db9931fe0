import { PENDING_JOB_TTL, type Submission, type SubmitReply } from '../store.ts'
import type { CommandState } from './command-state.ts'
import type { Dispatcher } from './dispatch.ts'
import { JobRecord } from './job-record.ts'
import type { QueueState, TransitionContext } from './queue-state.ts'

/** A submission and what its transition needs. */
export interface SubmitContext {
  state: QueueState
  submission: Submission
  /** Inbox and nonce of the submitter. */
  park: string
  dispatcher: Dispatcher
  at: TransitionContext
}

/** Joins the job of this id, or is served its outcome, or creates a generation. Idempotent. */
export function submitJob(context: SubmitContext): SubmitReply {
  const { state, submission, at } = context
  const { id, nonce, command, conflict, requiresWorker } = submission
  const job = state.job(id, at.now)
  if (job && !job.finished) return join(job, context)
  // A repetition whose job has finished meanwhile is not run again.
  const isRepeated = job?.creatorNonce === nonce
  if (job && isRepeated && !submission.awaited) return { status: 'created', generation: job.generation }
  const fresh = job?.freshOutcome(at.now)
  if (job && fresh) {
    const { kind, fence, bytes } = fresh
    const outcome = { kind, fence, bytes }
    if (matches(job, submission)) return { status: 'cached', generation: job.settledGeneration, outcome }
    if (conflict !== 'rerun') return { status: 'conflict' }
  }
  if (job && isRepeated) return { status: 'created', generation: job.generation }
  if (requiresWorker && state.command(command).knownWorkers(at.now).length === 0) return { status: 'unknown' }
  return { status: 'created', generation: createGeneration(job, context) }
}

/** Whether the present generation of a job satisfies the submission. */
function matches(job: JobRecord, { conflict, payload }: Submission): boolean {
  return conflict === 'join' || job.payload === payload
}

function join(job: JobRecord, { submission, park, at }: SubmitContext): SubmitReply {
  const { nonce, awaited, payload, options, conflict, abortUnwanted } = submission
  const { next } = job
  const parked = job.parks.get(park)
  if (job.creatorNonce === nonce) return { status: 'created', generation: job.generation }
  if (next?.creatorNonce === nonce) return { status: 'created', generation: next.generation }
  if (parked !== undefined) return { status: 'joined', generation: parked }
  if (awaited && job.parks.size >= at.maxParked) return { status: 'overloaded' }
  // The next generation has the newest payload, even if that is the payload that runs now.
  const isPresent = matches(job, submission) && !(next && conflict === 'rerun')
  const isNext = !isPresent && next?.payload === payload
  if (!isPresent && !isNext) {
    if (conflict !== 'rerun') return { status: 'conflict' }
    const generation = next?.generation ?? Math.max(job.generation + 1, at.micros)
    job.next = { generation, payload, options, creatorNonce: nonce }
  }
  const generation = isPresent ? job.generation : (job.next?.generation ?? 0)
  if (awaited) job.parks.set(park, generation)
  // A submitter that does not ask for `abortUnwanted` relies on the job, whether it waits or not.
  if (!abortUnwanted) job.abortUnwanted = false
  return { status: isPresent || next ? 'joined' : 'created', generation }
}

/** Begins a generation. Returns its number. */
function createGeneration(previous: JobRecord | undefined, context: SubmitContext): number {
  const { state, submission, park, at } = context
  const generation = Math.max((previous?.generation ?? 0) + 1, at.micros)
  const job = previous ?? new JobRecord(submission, generation)
  if (previous) {
    state.removeFromListing(previous)
    previous.resubmit(submission, generation)
  }
  job.expiresAt = at.now + PENDING_JOB_TTL
  state.add(job)
  const { priority, awaited, delay } = submission
  if (awaited) job.creatorPark = park
  if (priority > 0) job.rank = { priority, micros: at.micros, batchIndex: at.batchIndex }
  const command = state.command(submission.command)
  if (delay > 0) delayJob(job, command, context)
  else assignOrPush(job, command, context)
  return generation
}

/** Delays the job. One worker is notified, so that a process has a timer for it. */
function delayJob(job: JobRecord, command: CommandState, { state, submission, at }: SubmitContext): void {
  state.delay(job, at.now + submission.delay)
  const [worker] = command.knownWorkers(at.now)
  if (worker !== undefined) at.notifyWorker(worker, { kind: 'due', ms: submission.delay })
}

/** Assigns the job to a free slot, or makes it ready. */
function assignOrPush(
  job: JobRecord,
  command: CommandState,
  { state, submission, dispatcher, at }: SubmitContext,
): void {
  const worker = command.takeSlot()
  if (worker !== undefined) return dispatcher.assign(job, worker)
  state.pushReady(job, submission.lifo, at.now)
  if (command.ready.length > 1) return
  if (command.knownWorkers(at.now).length === 0) at.broadcastWork()
}
