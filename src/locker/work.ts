/** What a work is given. */
export interface WorkContext {
  /** The key that it computes. */
  readonly key: string
  /**
   * Aborts with LeaseLostError when the lease is lost, with ClosedError at the end of `close`, with AbortedError when
   * nobody waits any more and `abortUnwanted` is set.
   */
  readonly signal: AbortSignal
  /** Number of the grant: only grows, so a store that it writes to can refuse an older one. 0 when unshared. */
  readonly fence: number
  /** Whether the result will reach other processes: false when Redis is away, or when nobody waits for anybody (noStore). */
  readonly shared: boolean
  /** Shows a value to everyone who waits, in any process; several in quick succession may be merged into the last. */
  progress(value: unknown): void
  /** Decides how long the result is kept, ms, instead of the option `ttl`. Throws TypeError when it is no duration. */
  setTtl(ttl: number): void
  /**
   * The result goes to those who wait, and is not kept; what was kept before stays as it is. For `bypassFor` ms from then
   * on (10 000 unless given) nobody waits for anybody: each caller runs its own work at once. A work that then does not
   * call this has its result kept, and ends that. 0: later callers wait for one of them as ever.
   */
  noStore(options?: { bypassFor?: number | undefined }): void
}

/** What computes a result. */
export type Work<T> = (context: WorkContext) => T | PromiseLike<T>

/** What `request` receives when there is a result. */
export interface Done<T> {
  status: 'done'
  result: T
}

/** A flight, or the work of several, as far as it can wait for others: whatever its work asks for, it waits for. */
export interface WaitNode {
  /** How many calls of its work wait for each flight. */
  waitsFor: Map<WaitNode, number> | undefined
}
