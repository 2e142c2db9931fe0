/** The job that a work runs, and what it may report of it. */
export interface JobContext {
  readonly id: string
  readonly queue: string
  /** Number of this attempt, from 1. */
  readonly attempt: number
  /** Largest number of attempts; Infinity: until it is done. Undefined if the gateway does not say. */
  readonly attempts: number | undefined
  /** The job as it was posted, byte for byte. */
  readonly text: string
  /**
   * Aborts when the result is no longer wanted. `reason.code`: 'E_LEASE_LOST', another worker has the job, or its lease could not
   * be renewed in time; 'E_ABORTED', it was cancelled; 'E_CLOSED', the worker stops and has given the job back.
   */
  readonly signal: AbortSignal
  /**
   * Reports the progress of the job: any JSON of less than 64 KiB. Values that come faster than the gateway answers replace one
   * another.
   * @throws TypeError if the value is not JSON, or too large.
   */
  progress(value: unknown): void
  /**
   * Appends a line to the log of the job, cut after 16 Ki characters. If more than 1,000 lines, or 512 Ki characters, wait to be
   * sent, the oldest lines are dropped.
   */
  log(line: string): void
}
