import type { SoloflightError } from '../../../errors.ts'
import { outsideWork } from '../../../kernel/time.ts'
import type { StreamRecord, StreamSpace } from '../stream-record.ts'
import { WAIT_FOR_FRESH } from './stream-locator.ts'

/** What the record of a stream says to a reader that never produces. */
export type Watched =
  /** A grant has this log. It may be that of a producer that died: then `vacant` follows. */
  | { readonly kind: 'running'; readonly record: StreamRecord }
  /** A process holds the lease. */
  | { readonly kind: 'held' }
  /** Nobody holds the lease, and there is no result. */
  | { readonly kind: 'vacant' }
  /** The last report. */
  | { readonly kind: 'completed'; readonly record: StreamRecord }
  /** The last report. */
  | { readonly kind: 'failed'; readonly error: SoloflightError }

/** Reports what the record of a stream says, from now on until it is complete or {@link stop} is called. */
export class StreamWatch {
  readonly #stopping = new AbortController()

  constructor(space: StreamSpace, key: string, report: (watched: Watched) => void) {
    const { signal } = this.#stopping
    const unlessStopped = (watched: Watched) => {
      if (!signal.aborted) report(watched)
    }
    const options = {
      ...WAIT_FOR_FRESH,
      signal,
      afterFence: 0,
      onProgress: (record: unknown) => unlessStopped({ kind: 'running', record: record as StreamRecord }),
      onParked: (isHeld: boolean) => unlessStopped({ kind: isHeld ? 'held' : 'vacant' }),
    }
    // A work that follows a stream waits only while it calls `next`: the reader notes that wait itself.
    outsideWork(() => space.wait(key, options)).then(
      ({ value }) => unlessStopped({ kind: 'completed', record: value }),
      (error: SoloflightError) => unlessStopped({ kind: 'failed', error }),
    )
  }

  stop(): void {
    this.#stopping.abort()
  }
}
