import type { Disposition } from './events/events.ts'
import type { SubmitOptions } from './options.ts'
import type { JobStatus } from './types.ts'

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

  /** The current status of the job; undefined if it does not exist any more. */
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
