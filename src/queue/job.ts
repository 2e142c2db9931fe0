import type { Disposition } from './events/events.ts'
import type { SubmitOptions } from './options.ts'
import type { JobStatus } from './types.ts'

/** The queue of a job, as the job uses it. */
export interface JobQueue {
  result(job: Job, options: ResultOptions): Promise<unknown>
  status(id: string): Promise<JobStatus | undefined>
  cancel(id: string): Promise<boolean>
  remove(id: string): Promise<boolean>
  retry(id: string): Promise<boolean>
  logs(id: string): Promise<string[]>
}

/** Options of waiting for a job. */
export type ResultOptions = Pick<SubmitOptions, 'timeout' | 'signal' | 'onProgress'>

/** A job that was handed in, or looked up. */
export class Job<Result = unknown> {
  readonly id: string
  readonly command: string
  /** What became of the submission; undefined for a job that was looked up. */
  readonly disposition: Disposition | undefined
  /** Number of the run that it stands for: only grows. */
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
   * The result. What became of a job can be read for its ttl, and for 15 s at least.
   * @throws RemoteError when the job failed, RemovedError when it was removed or nothing is known of it any more;
   * TimeoutError, AbortedError, UnavailableError, ClosedError.
   */
  result(options: ResultOptions = {}): Promise<Result> {
    return this.#queue.result(this, options) as Promise<Result>
  }

  /** The job as it is now; undefined when it is not there any more. */
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
