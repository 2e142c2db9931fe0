import { type Codec, decodeWith } from '../kernel/codec/codec.ts'
import { decodeFailure } from '../kernel/codec/failure.ts'
import type { JobOutcome, JobSnapshot } from './store/store.ts'
import { decodePayload } from './submitting/payload.ts'
import type { JobStatus } from './types.ts'

/** A job as the store knows it, to be shown. Throws CodecError when its result cannot be read. */
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

const OVER = { value: 'completed', error: 'failed', removed: 'removed' } as const

/** The state of a job: by its outcome, else by whether a worker has it, or it is not due yet. */
export function stateOf(
  outcome: JobOutcome['kind'] | undefined,
  owned: boolean,
  delayed: boolean,
): JobSnapshot['state'] {
  if (outcome) return OVER[outcome]
  if (owned) return 'active'
  return delayed ? 'delayed' : 'waiting'
}

/** A payload to be shown; undefined for one that is none: it must not hide the others. */
function payloadOf(text: string): unknown {
  try {
    return decodePayload(text)
  } catch {
    return undefined
  }
}
