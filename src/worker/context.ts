/** What a worker knows of the job that it runs, and may tell of it. */
export interface JobContext {
  readonly id: string
  readonly queue: string
  /** Number of this attempt, from 1. */
  readonly attempt: number
  /** How often the job is tried at most; Infinity: until it is done. Undefined if the gateway does not say. */
  readonly attempts: number | undefined
  /** The job as it was posted, byte for byte. */
  readonly text: string
  /**
   * Aborts when the result is not wanted any more. `reason.code`: 'E_LEASE_LOST', the job was given to another worker,
   * or its lease could not be renewed in time; 'E_ABORTED', it was cancelled; 'E_CLOSED', the worker stops and has given the job back.
   */
  readonly signal: AbortSignal
  /**
   * Tells how far the job is: any JSON of less than 64 KiB. Values that come faster than the gateway answers replace one another.
   * @throws TypeError if the value is not JSON, or too large.
   */
  progress(value: unknown): void
  /**
   * Appends a line to the log of the job, cut after 16 Ki characters. Of more than 1,000 lines, or 512 Ki characters, that are
   * not sent yet, the oldest lines are dropped.
   */
  log(line: string): void
}
