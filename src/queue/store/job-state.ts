import type { JobOutcome, JobSnapshot } from './store.ts'

const FINISHED_STATE = { value: 'completed', error: 'failed', removed: 'removed' } as const

/** The state of a job: from its outcome, else from whether it has an owner or is delayed. */
export function stateOf(
  outcome: JobOutcome['kind'] | undefined,
  owned: boolean,
  delayed: boolean,
): JobSnapshot['state'] {
  if (outcome) return FINISHED_STATE[outcome]
  if (owned) return 'active'
  return delayed ? 'delayed' : 'waiting'
}
