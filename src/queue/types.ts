import type { RemoteFailure } from '../errors.ts'
import type { JobState } from './store/store.ts'
import type { Handler } from './working/running-job.ts'

/** The commands of a queue: for each, a function from payload to result. */
export type JobMap<Jobs> = {
  // biome-ignore lint/suspicious/noExplicitAny: the only type that every payload fits
  [Command in keyof Jobs]: (payload: any) => unknown
}

/** The commands of a queue of which nothing is said. */
// biome-ignore lint/suspicious/noExplicitAny: nothing is known of them
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

/** A job as it is now. */
export interface JobStatus {
  id: string
  command: string
  state: JobState | 'removed'
  payload: unknown
  /** How often it was tried again after it had failed, and how often it lost its worker. */
  retries: number
  stalls: number
  /** What its handler has shown last. */
  progress: unknown
  /** How many processes wait for it, each for whatever number of submitters. */
  waiters: number
  /** Of a completed job, as far as it is kept. */
  result?: unknown
  /** Of a failed one. */
  failure?: RemoteFailure
}

/** A page of jobs. */
export interface JobPage {
  jobs: JobStatus[]
  /** Where the next page begins; undefined on the last. */
  cursor: string | undefined
}
