/** Number of jobs of a queue since it was first used, or erased. */
export interface QueueTotals {
  /**
   * Jobs that submissions have created, reruns included. Submissions that joined a job or got its result, and retries, do not
   * count.
   */
  submitted: number
  /** Jobs that ended with a result. */
  completed: number
  /** Jobs that ended with a failure: of their last attempt, by `cancel`, or because they lost too many workers. */
  failed: number
  /**
   * Attempts that began: their worker accepted the delivery, or reported a result or a failure. A delivery that is given back, or
   * whose worker is lost before it accepts, does not count.
   */
  taken: number
  /** Attempts that began and were given back: those of `taken` that do not count for their jobs. */
  returned: number
}

export function noTotals(): QueueTotals {
  return { submitted: 0, completed: 0, failed: 0, taken: 0, returned: 0 }
}
