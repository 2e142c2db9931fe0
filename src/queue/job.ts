import type { RemoteFailure } from '../errors.ts'
import { type Codec, decodeWith } from '../kernel/codec/codec.ts'
import { decodeFailure } from '../kernel/codec/failure.ts'
import { JsonText } from '../kernel/codec/json-text.ts'
import { jsonTextCodec } from '../kernel/codec/json-text-codec.ts'
import type { Disposition } from './events.ts'
import type { SubmitOptions } from './options.ts'
import type { JobSnapshot, JobState } from './store/store.ts'
import { decodePayload } from './submitting/submission.ts'
import type { Handler } from './working/running-job.ts'

/** The commands of a queue: for each, the type of a function from payload to result. */
export type JobMap<Jobs> = {
  // biome-ignore lint/suspicious/noExplicitAny: the only type that accepts every payload
  [Command in keyof Jobs]: (payload: any) => unknown
}

/** The commands of a queue without a type argument: any payload and any result. */
// biome-ignore lint/suspicious/noExplicitAny: no type is known
export type AnyJobs = Record<string, (payload: any) => any>

/** The names of the commands of a queue. */
export type CommandOf<Jobs> = keyof Jobs & string

/** The payload of a command. */
export type PayloadOf<Jobs extends JobMap<Jobs>, Command extends keyof Jobs> = Parameters<Jobs[Command]>[0]

/** The result of a command. */
export type ResultOf<Jobs extends JobMap<Jobs>, Command extends keyof Jobs> = Awaited<
  ReturnType<Jobs[Command]>
>

/** The handler of a command. */
export type HandlerOf<Jobs extends JobMap<Jobs>, Command extends keyof Jobs> = Handler<
  PayloadOf<Jobs, Command>,
  ResultOf<Jobs, Command>
>

/** A job of {@link RedisQueue.enqueueMany}. */
export type BulkJob<Jobs extends JobMap<Jobs>> = {
  [Command in CommandOf<Jobs>]: {
    command: Command
    payload?: PayloadOf<Jobs, Command> | JsonText
    options?: Omit<SubmitOptions, 'signal' | 'onProgress' | 'timeout'>
  }
}[CommandOf<Jobs>]

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
  /** The rest of the delay of a delayed job, ms. */
  dueIn?: number
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

/** The methods of its queue that a job uses. */
export interface JobQueue {
  result(job: Job, options: ResultOptions): Promise<unknown>
  status(id: string): Promise<JobStatus | undefined>
  cancel(id: string): Promise<boolean>
  remove(id: string): Promise<boolean>
  retry(id: string): Promise<boolean>
  logs(id: string): Promise<string[]>
}

/** Options of {@link Job.result}. */
export type ResultOptions = Pick<SubmitOptions, 'timeout' | 'signal' | 'onProgress'>

/** A handle of a job, returned by `enqueue` and `queue.job`. */
export class Job<Result = unknown> {
  readonly id: string
  readonly command: string
  /** Effect of the submission; undefined for a job that was looked up by `queue.job`. */
  readonly disposition: Disposition | undefined
  /** Number of the run that this handle stands for. Each later run of the job has a greater one. */
  readonly generation: number
  readonly #queue: JobQueue

  constructor(
    id: string,
    command: string,
    disposition: Disposition | undefined,
    generation: number,
    queue: JobQueue,
  ) {
    this.id = id
    this.command = command
    this.disposition = disposition
    this.generation = generation
    this.#queue = queue
  }

  /**
   * Waits for the outcome of the run, and resolves with its result. An outcome can be read for its ttl, and for at least
   * 15 s.
   * @throws RemoteError if the job failed; RemovedError if it was removed or its outcome has expired; TimeoutError,
   * AbortedError, UnavailableError, ClosedError.
   */
  result(options: ResultOptions = {}): Promise<Result> {
    return this.#queue.result(this, options) as Promise<Result>
  }

  /** The current status of the job; undefined if it no longer exists. */
  status(): Promise<JobStatus | undefined> {
    return this.#queue.status(this.id)
  }

  /** See {@link RedisQueue.cancel}. */
  cancel(): Promise<boolean> {
    return this.#queue.cancel(this.id)
  }

  /** See {@link RedisQueue.remove}. */
  remove(): Promise<boolean> {
    return this.#queue.remove(this.id)
  }

  /** See {@link RedisQueue.retry}. */
  retry(): Promise<boolean> {
    return this.#queue.retry(this.id)
  }

  /** See {@link RedisQueue.logs}. */
  logs(): Promise<string[]> {
    return this.#queue.logs(this.id)
  }
}

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
    dueIn,
  } = snapshot
  const status: JobStatus = {
    ...{ id, command, state, payload: payloadOf(payload, codec), retries: failed, stalls: stalled, waiters },
    progress: progress && decodeWith(codec, progress, id),
  }
  if (dueIn !== undefined) status.dueIn = dueIn
  if (outcome?.kind === 'value') status.result = decodeWith(codec, outcome.bytes, id)
  if (outcome?.kind === 'error') status.failure = decodeFailure(outcome.bytes)
  return status
}

/**
 * The payload of a job: with `jsonTextCodec` its JSON as it stands. Undefined if it is invalid, so that one job does not make a
 * listing fail.
 */
function payloadOf(text: string, codec: Codec): unknown {
  try {
    return codec === jsonTextCodec && text !== '' ? JsonText.parse(text) : decodePayload(text)
  } catch {
    return undefined
  }
}
