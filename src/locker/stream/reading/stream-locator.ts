import type { SoloflightError } from '../../../errors.ts'
import { outsideWork } from '../../../kernel/event-loop.ts'
import type { StreamGrant, StreamSpace } from '../stream-host.ts'
import type { StreamRecord } from '../stream-record.ts'

/** Events of a locator. */
export interface LocatorEvents {
  /** The stream is being produced; the record names the log. */
  onRunning(record: StreamRecord): void
  /** The lease was granted: the caller produces. */
  onGranted(grant: StreamGrant): void
  /** The stream is complete; the record names the log and its end. */
  onCompleted(record: StreamRecord): void
  onFailed(error: SoloflightError): void
}

/** A request has no deadline of its own, and accepts no stale result: the log that it names may be gone. */
const WAIT_FOR_FRESH = {
  timeout: Number.POSITIVE_INFINITY,
  softTimeout: Number.POSITIVE_INFINITY,
  staleWhileRevalidate: 0,
  staleIfError: 0,
} as const

/** Finds the log of a stream by its record. Makes one request at a time, and ignores the replies to earlier ones. */
export class StreamLocator {
  readonly #space: StreamSpace
  readonly #key: string
  readonly #lease: number
  readonly #events: LocatorEvents
  #request: AbortController | undefined

  constructor(space: StreamSpace, key: string, lease: number, events: LocatorEvents) {
    this.#space = space
    this.#key = key
    this.#lease = lease
    this.#events = events
  }

  /** Whether a request waits for its reply. */
  get pending(): boolean {
    return this.#request !== undefined
  }

  /** Requests the record. Only results of grants after `afterFence` count. */
  locate(afterFence: number, onUnavailable: 'fail' | 'local'): void {
    const request = new AbortController()
    this.#request = request
    const { signal } = request
    const onProgress = (record: unknown) => {
      if (this.#request === request) this.#events.onRunning(record as StreamRecord)
    }
    const options = { ...WAIT_FOR_FRESH, signal, lease: this.#lease, afterFence, onUnavailable, onProgress }
    // A work that reads a stream waits only while it calls `next`: the reader notes that wait itself.
    outsideWork(() => this.#space.request(this.#key, options)).then(
      (reply) => {
        const isCurrent = this.#end(request)
        if (reply.status === 'done') return isCurrent && this.#events.onCompleted(reply.result.value)
        if (isCurrent) this.#events.onGranted(reply)
        else reply.release().catch(() => {})
      },
      (error: SoloflightError) => this.#end(request) && this.#events.onFailed(error),
    )
  }

  /** Returns whether this was the current request. */
  #end(request: AbortController): boolean {
    if (this.#request !== request) return false
    this.#request = undefined
    return true
  }

  /** Cancels the request. */
  stop(): void {
    const request = this.#request
    this.#request = undefined
    request?.abort()
  }
}
