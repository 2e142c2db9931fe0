import type { WaitNode } from '../../../kernel/work-scheduler.ts'

/** One caller that reads a stream, without the waiting: see `StreamIterator`. */
export interface Reader {
  /** Starts to read, the first time that it is called. */
  start(): void
  /** The next result; undefined when the caller must wait for it. Throws the error that ends the stream. */
  take(): IteratorResult<unknown, undefined> | undefined
  /** The wait-for edge of this reader, while it waits for a producer in this process. */
  readonly waitNode: WaitNode | undefined
  /** Ends it with an error. */
  fail(error: Error): void
  /** Ends it without an error. */
  finish(): void
}
