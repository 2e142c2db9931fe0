/** The job that a handler is called with. */
export interface RunningJob<Payload = unknown> {
  readonly id: string
  readonly queue: string
  readonly command: string
  readonly payload: Payload
  /** Number of this attempt: 1, plus the number of failed attempts. */
  readonly attempt: number
  /** Number of attempts whose worker was lost. They do not count as failed. */
  readonly stalls: number
  /**
   * Fencing token of this attempt: greater than that of every earlier attempt of the job. Pass it to the systems that the
   * handler writes to, so that they can refuse writes of an earlier attempt that still runs.
   */
  readonly fence: number
  /**
   * Aborts when the result of this attempt is no longer wanted. The reason is AbortedError if the job was cancelled or
   * removed, LeaseLostError if the lease was lost, TimeoutError if the attempt took longer than `maxHold`, ClosedError if
   * `close` ended before the attempt.
   */
  readonly signal: AbortSignal
  /** Trace context (W3C traceparent) of the submitter; link the span of the handler to it. */
  readonly trace: string | undefined
  /**
   * Sends a value to the `onProgress` of all submitters. Best effort: one value per 50 ms is sent, the latest.
   * @throws CodecError if the value cannot be encoded, or is too large for a message.
   */
  progress(value: unknown): void
  /** Appends a line to the log of the job, best effort. `queue.logs(id)` reads it. */
  log(line: string): void
}

/** Processes the jobs of a command. Its result, or the error that it throws, goes to every submitter. */
export type Handler<Payload = unknown, Result = unknown> = (
  payload: Payload,
  job: RunningJob<Payload>,
) => Result | PromiseLike<Result>
