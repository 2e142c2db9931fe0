import { stateOf } from '../../status.ts'
import type { JobSnapshot, JobState } from '../store.ts'
import type { JobRecord } from './job-record.ts'
import type { BookState } from './queue-state.ts'

/** A job as it is now. */
export function snapshotOf(job: JobRecord): JobSnapshot {
  const { id, command, payload, options, generation, failed, stalled, fence, progress, waiters } = job
  const outcome = job.over ? job.outcomeOf(generation) : undefined
  return {
    id,
    command,
    state: stateOf(outcome?.kind, job.worker !== '', job.due !== undefined),
    payload,
    options,
    generation,
    failures: failed,
    stalls: stalled,
    fence,
    progress,
    outcome,
    waiters,
  }
}

/** The jobs in a state, in the order in which they will be or were treated. */
export function idsIn(book: BookState, state: JobState, now: number): string[] {
  switch (state) {
    case 'waiting':
      return book.commands(now).flatMap((name) => book.command(name).line.ids())
    case 'active':
      return book.times.ids().filter((id) => book.delayed.at(id) === undefined)
    case 'delayed':
      return book.delayed.ids()
    case 'completed':
      return book.completed.ids(now)
    case 'failed':
      return book.failed.ids(now)
  }
}
