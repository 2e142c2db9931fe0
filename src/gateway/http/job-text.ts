import type { JobStatus } from '../../queue/index.ts'
import { textOf } from './json.ts'

/**
 * The members of a job's JSON. `failure` and `result` are there if the job has one. Result and progress stand there byte for
 * byte.
 */
export function jobMembers(queue: string, status: JobStatus): Record<string, string | undefined> {
  const { id, command, state, retries, stalls, waiters, payload, progress, failure } = status
  return {
    id: JSON.stringify(id),
    queue: JSON.stringify(queue),
    command: JSON.stringify(command),
    state: JSON.stringify(state),
    retries: String(retries),
    stalls: String(stalls),
    waiters: String(waiters),
    job: textOf(payload),
    progress: progress === undefined ? undefined : textOf(progress),
    result: 'result' in status ? textOf(status.result) : undefined,
    failure: failure && JSON.stringify(failure),
  }
}
