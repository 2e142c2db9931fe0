import { type Codec, decodeWith } from '../kernel/codec/codec.ts'
import { decodeFailure } from '../kernel/codec/failure.ts'
import type { JobOutcome, JobSnapshot } from './store/store.ts'
import { decodePayload } from './submitting/payload.ts'
import type { JobStatus } from './types.ts'

/** The public status of a job. Throws CodecError if its result cannot be decoded. */
export function statusOf(snapshot: JobSnapshot, codec: Codec): JobStatus {
  const {
    id,
    command,
    state,
    payload,
    failures: failed,
    stalls: stalled,
    progress,
    waiters,
    outcome,
  } = snapshot
  const status: JobStatus = {
    ...{ id, command, state, payload: payloadOf(payload), retries: failed, stalls: stalled, waiters },
    progress: progress && decodeWith(codec, progress, id),
  }
  if (outcome?.kind === 'value') status.result = decodeWith(codec, outcome.bytes, id)
  if (outcome?.kind === 'error') status.failure = decodeFailure(outcome.bytes)
  return status
}

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

/** The payload of a job; undefined if it is invalid, so that one job does not make a listing fail. */
function payloadOf(text: string): unknown {
  try {
    return decodePayload(text)
  } catch {
    return undefined
  }
}
