import type { RemoteFailure } from '../errors.ts'
import type { JobState } from './store/store.ts'
import type { Handler } from './working/running-job.ts'

/** The commands of a queue: for each, the type of a function from payload to result. */
export type JobMap<Jobs> = {
  // biome-ignore lint/suspicious/noExplicitAny: the only type that accepts every payload
  [Command in keyof Jobs]: (payload: any) => unknown
}

/** The commands of a queue without a type argument: any payload and any result. */
// biome-ignore lint/suspicious/noExplicitAny: no type is known
export type AnyJobs = Record<string, (payload: any) => any>

export type CommandOf<Jobs> = keyof Jobs & string

export type PayloadOf<Jobs extends JobMap<Jobs>, Command extends keyof Jobs> = Parameters<Jobs[Command]>[0]

export type ResultOf<Jobs extends JobMap<Jobs>, Command extends keyof Jobs> = Awaited<
  ReturnType<Jobs[Command]>
>

export type HandlerOf<Jobs extends JobMap<Jobs>, Command extends keyof Jobs> = Handler<
  PayloadOf<Jobs, Command>,
  ResultOf<Jobs, Command>
>

/** The current status of a job. */
export interface JobStatus {
  id: string
  command: string
  state: JobState | 'removed'
  payload: unknown
  /** Number of attempts that failed and were retried. */
  retries: number
  /** Number of attempts whose worker was lost. */
  stalls: number
  /** The last value that the handler passed to `job.progress`. */
  progress: unknown
  /** Number of processes with waiters for the job; each may have several. */
  waiters: number
  /** Result of a completed job, while it is kept. */
  result?: unknown
  /** Failure of a failed job, while it is kept. */
  failure?: RemoteFailure
}

/** A page of jobs. */
export interface JobPage {
  jobs: JobStatus[]
  /** Pass it to `jobs` for the next page; undefined on the last page. */
  cursor: string | undefined
}
