/** What a work receives: its key, its lease, and the means to tell how its result is kept. */
export interface WorkContext {
  /** The key to compute. */
  readonly key: string
  /**
   * Aborts with LeaseLostError when the lease is lost, with ClosedError at the end of `close`, and with AbortedError when
   * `abortUnwanted` is set and no caller waits any more.
   */
  readonly signal: AbortSignal
  /** Fencing token of the grant. It only grows, so a store can refuse writes with an older one. 0 when unshared. */
  readonly fence: number
  /** Whether the result will reach other processes. False when Redis is unavailable, or during a bypass (see `noStore`). */
  readonly shared: boolean
  /**
   * Sends a value to the `onProgress` of all waiters, in every process. Of several values in quick succession only the last
   * may arrive. @throws CodecError when it cannot be encoded, or is too large.
   */
  progress(value: unknown): void
  /** How long the result is kept, ms, instead of the option `ttl`. @throws TypeError when it is no duration. */
  setTtl(ttl: number): void
  /**
   * Gives the result to the callers that wait, and does not store it. The stored result stays as it is. For `bypassFor` ms
   * from then on (10 000 by default), callers do not wait for each other: each runs its own work at once (hit-for-pass). The
   * first such work that does not call `noStore` has its result stored, which ends the bypass. With 0 there is no bypass.
   * @throws TypeError when an option is invalid.
   */
  noStore(options?: { bypassFor?: number | undefined }): void
}

/** Computes a result. */
export type Work<T> = (context: WorkContext) => T | PromiseLike<T>

/** The reply to `request` when there is a result. */
export interface Done<T> {
  status: 'done'
  result: T
}

/** A node of the deadlock graph: a flight, or the work of a batch. It waits for the flights that its work asks for. */
export interface WaitNode {
  /** The flights that it waits for, with the number of waiting calls of its work. Written by work-runner.ts. */
  waitsFor: Map<WaitNode, number> | undefined
}
