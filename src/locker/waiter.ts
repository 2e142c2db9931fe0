import pDefer from 'p-defer'
import { AbortedError, SoloflightError, TimeoutError } from '../errors.ts'
import type { Clock, Timer } from '../kernel/clock.ts'
import { listened, tell } from '../kernel/telemetry.ts'
import type { Caller } from './caller.ts'
import type { Lease } from './lease.ts'

/** What a work is given. */
export interface WorkContext {
  /** The key that it computes. */
  readonly key: string
  /** Aborts with LeaseLostError when the lease is lost, with ClosedError at the end of `close`. */
  readonly signal: AbortSignal
  /** Number of the grant: only grows, so a store that it writes to can refuse an older one. 0 when unshared. */
  readonly fence: number
  /** Whether the result will reach other processes: false when Redis is away and the work runs for this one alone. */
  readonly shared: boolean
  /** Shows a value to everyone who waits, in any process; several in quick succession may be merged into the last. */
  progress(value: unknown): void
}

/** What computes a result. */
export type Work<T> = (context: WorkContext) => T | PromiseLike<T>

/** One call of `run` or `request`, with every option resolved. */
export interface Call {
  key: string
  /** Name of the record. */
  record: string
  caller: Caller
  /** Of `run`; `request` has none: it is given the lease itself. */
  work: Work<unknown> | undefined
  timeout: number
  signal: AbortSignal | undefined
  lease: number
  ttl: number
  errorTtl: number
  refresh: boolean
  onProgress: ((value: unknown) => void) | undefined
}

/** What `request` receives when there is a result. */
export interface Done<T> {
  status: 'done'
  result: T
}

/** One caller that waits. Settles exactly once: by the flight, its own deadline, or its own signal. */
export class Waiter {
  readonly call: Call
  /** Order of arrival in its flight. */
  seq = 0
  readonly #deferred = pDefer<unknown>()
  readonly #clock: Clock
  readonly #since: number
  #timer: Timer | undefined
  #onAbort: (() => void) | undefined
  #waiting = true
  /** Those among whom it waits. */
  #among: { remove(waiter: Waiter): void } | undefined
  /** Called when it waits no longer. */
  onEnd: (() => void) | undefined

  constructor(call: Call, clock: Clock) {
    this.call = call
    this.#clock = clock
    this.#since = clock.now()
  }

  /** Of `run`: the result. Of `request`: a Lease, or Done. */
  get promise(): Promise<unknown> {
    return this.#deferred.promise
  }

  /** Whether it must not receive anything that an acknowledged invalidation might have preceded. */
  get strict(): boolean {
    return this.call.caller.strict
  }

  /** Listens to its signal; leaves `among` when it waits no longer. */
  begin(among: { remove(waiter: Waiter): void }): void {
    this.#among = among
    const { signal } = this.call
    if (!signal) return
    this.#onAbort = () => this.#abort()
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** Starts its deadline, which counts from when it was made. */
  startDeadline(): void {
    const { timeout } = this.call
    if (timeout === Number.POSITIVE_INFINITY || this.#timer) return
    this.#timer = this.#clock.after(this.#since + timeout - this.#clock.now(), () => this.#expire())
  }

  #expire(): void {
    const { key, timeout, caller } = this.call
    caller.counters.timeouts++
    this.reject(new TimeoutError(`No outcome within ${timeout} ms`, { key }))
  }

  #abort(): void {
    const { key, signal, caller } = this.call
    caller.counters.aborts++
    this.reject(new AbortedError('The caller aborted its waiting', { key, cause: signal?.reason }))
  }

  /** There is a result. */
  resolve(result: unknown): void {
    if (!this.#end()) return
    this.#tell('result')
    this.#deferred.resolve(this.call.work ? result : { status: 'done', result })
  }

  /** It is the processor: of `request` only. */
  grant(lease: Lease): void {
    if (!this.#end()) return
    this.#tell('lease')
    this.#deferred.resolve(lease)
  }

  reject(error: unknown): void {
    if (!this.#end()) return
    this.#tell(error instanceof SoloflightError ? error.code : 'error')
    this.#deferred.reject(error)
  }

  #end(): boolean {
    if (!this.#waiting) return false
    this.#waiting = false
    this.#timer?.cancel()
    if (this.#onAbort) this.call.signal?.removeEventListener('abort', this.#onAbort)
    this.#among?.remove(this)
    this.onEnd?.()
    return true
  }

  #tell(outcome: string): void {
    if (listened('wait')) tell('wait', { key: this.call.key, ms: this.#clock.now() - this.#since, outcome })
  }
}
