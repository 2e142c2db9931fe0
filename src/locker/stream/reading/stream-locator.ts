import type { SoloflightError } from '../../../errors.ts'
import { outsideWork } from '../../../kernel/time.ts'
import type { StreamGrant, StreamRecord, StreamSpace } from '../stream-record.ts'

/** What the record of a stream says. */
export type Located =
  /** The stream is being produced; the record names the log. */
  | { readonly kind: 'running'; readonly record: StreamRecord }
  /** The lease was granted: the caller produces. */
  | { readonly kind: 'granted'; readonly grant: StreamGrant }
  /** The stream is complete; the record names the log and its end. */
  | { readonly kind: 'completed'; readonly record: StreamRecord }
  | { readonly kind: 'failed'; readonly error: SoloflightError }

const FOREVER = Number.POSITIVE_INFINITY

/** A request has no deadline of its own, and accepts no stale result: the log that it names may be gone. */
export const WAIT_FOR_FRESH: {
  readonly timeout: number
  readonly softTimeout: number
  readonly staleWhileRevalidate: 0
  readonly staleIfError: 0
} = {
  timeout: FOREVER,
  softTimeout: FOREVER,
  staleWhileRevalidate: 0,
  staleIfError: 0,
}

/**
 * Finds the log of a stream by its record. Makes one request at a time, and ignores the replies to earlier ones. A request
 * may report `running` several times; any other report ends it.
 */
export class StreamLocator {
  readonly #space: StreamSpace
  readonly #key: string
  readonly #lease: number
  readonly #onLocated: (located: Located) => void
  /** Cancels the request that is under way. */
  #request: AbortController | undefined

  constructor(space: StreamSpace, key: string, lease: number, onLocated: (located: Located) => void) {
    this.#space = space
    this.#key = key
    this.#lease = lease
    this.#onLocated = onLocated
  }

  /** Whether a request is under way. */
  get pending(): boolean {
    return this.#request !== undefined
  }

  /** Requests the record, instead of an earlier request. Only results of grants after `afterFence` count. */
  locate(afterFence: number, onUnavailable: 'fail' | 'local'): void {
    this.stop()
    const request = new AbortController()
    this.#request = request
    const { signal } = request
    const onProgress = (record: unknown) => {
      if (this.#request === request) this.#onLocated({ kind: 'running', record: record as StreamRecord })
    }
    const options = { ...WAIT_FOR_FRESH, signal, lease: this.#lease, afterFence, onUnavailable, onProgress }
    // A work that reads a stream waits only while it calls `next`: the reader notes that wait itself.
    outsideWork(() => this.#space.request(this.#key, options)).then(
      (reply) => {
        if (reply.status === 'done') this.#end(request, { kind: 'completed', record: reply.result.value })
        else if (!this.#end(request, { kind: 'granted', grant: reply })) reply.release().catch(() => {})
      },
      (error: SoloflightError) => void this.#end(request, { kind: 'failed', error }),
    )
  }

  /** Returns whether this is the current request, and reports its result then. */
  #end(request: AbortController, located: Located): boolean {
    if (this.#request !== request) return false
    this.#request = undefined
    this.#onLocated(located)
    return true
  }

  /** Cancels the request that is under way. */
  stop(): void {
    const request = this.#request
    this.#request = undefined
    request?.abort()
  }
}
