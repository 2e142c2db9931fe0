import { stateOf } from '../../status.ts'
import type { JobSnapshot, JobState } from '../store.ts'
import type { JobRecord } from './job-record.ts'
import type { QueueState } from './queue-state.ts'

/** A job as it is now. */
export function snapshotOf(job: JobRecord): JobSnapshot {
  const { id, command, payload, options, generation, failures, stalls, fence, progress, waiters } = job
  const outcome = job.finished ? job.outcomeOf(generation) : undefined
  return {
    id,
    command,
    state: stateOf(outcome?.kind, job.worker !== '', job.state.kind === 'delayed'),
    payload,
    options,
    generation,
    failures,
    stalls,
    fence,
    progress,
    outcome,
    waiters,
  }
}

/** The jobs in a state, in the order in which they will run, fall due or expire. */
export function idsIn(queue: QueueState, state: JobState, now: number): string[] {
  switch (state) {
    case 'waiting':
      return queue.commands(now).flatMap((name) => queue.command(name).ready.ids())
    case 'active':
      return queue.deadlines.ids().filter((id) => queue.delayed.timeOf(id) === undefined)
    case 'delayed':
      return queue.delayed.ids()
    case 'completed':
      return queue.completed.ids(now)
    case 'failed':
      return queue.failed.ids(now)
  }
}
