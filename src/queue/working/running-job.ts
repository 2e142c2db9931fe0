/** A job as its handler sees it. */
export interface RunningJob<Payload = unknown> {
  readonly id: string
  readonly queue: string
  readonly command: string
  readonly payload: Payload
  /** 1 for the first attempt, and one more after each that failed. */
  readonly attempt: number
  /** How often its worker was lost before. */
  readonly stalls: number
  /** Number of the grant: only grows, so a store that it writes to can refuse an older one. */
  readonly fence: number
  /**
   * Aborts with AbortedError when the job is cancelled or removed, with LeaseLostError when it was lost to another worker,
   * with TimeoutError when it took longer than `maxHold`, with ClosedError at the end of `close`.
   */
  readonly signal: AbortSignal
  /** Trace context of the submitter, to link a span to. */
  readonly trace: string | undefined
  /** Shows a value to everyone who waits; several in quick succession may be merged into the last. */
  progress(value: unknown): void
  /** Appends a line to the job's log, which `queue.logs(id)` reads. */
  log(line: string): void
}

/** What does the jobs of a command. */
export type Handler<Payload = unknown, Result = unknown> = (
  payload: Payload,
  job: RunningJob<Payload>,
) => Result | PromiseLike<Result>
