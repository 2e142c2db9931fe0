import pDefer from 'p-defer'
import { AbortedError, SoloflightError, TimeoutError } from '../errors.ts'
import type { Clock, Timer } from '../kernel/clock.ts'
import type { Deadlines, Pending } from '../kernel/deadlines.ts'
import { refProcess, unrefProcess } from '../kernel/keep-alive.ts'
import { onAbort } from '../kernel/on-abort.ts'
import { listened, tell } from '../kernel/telemetry.ts'
import { AsyncContext, callHook } from '../kernel/user-code.ts'
import { lendSlot } from '../kernel/work-scheduler.ts'

/** What one who waits for a job has said. */
export interface JobWaiterOptions {
  command: string
  timeout: number
  signal: AbortSignal | undefined
  onProgress: ((value: unknown) => void) | undefined
}

/** What waiters of a queue share. */
export interface WaiterSurroundings {
  readonly clock: Clock
  /** The timeout that most of them have: watched together, since a timer for each would cost more than they do. */
  readonly timeout: number
  readonly deadlines: Deadlines
  /** What a TimeoutError says of a command and its workers. Never rejects. */
  explain(command: string): Promise<string>
}

/**
 * One who waits for the outcome of a job. Settles exactly once: by the outcome, its own deadline, or its own signal. Until
 * then the process stays alive.
 */
export class JobWaiter implements Pending {
  readonly id: string
  readonly options: JobWaiterOptions
  deadline = 0
  readonly #about: WaiterSurroundings
  readonly #since: number
  readonly #deferred = pDefer<unknown>()
  readonly #timer: Timer | undefined
  /** Watched with the others. */
  readonly #together: boolean
  /** In which `onProgress` runs. */
  readonly #context: AsyncContext | undefined
  /** Ends the lending of the slot of the work that waits. */
  readonly #resume = lendSlot()
  /** Stops listening to its signal. */
  readonly #unlisten: (() => void) | undefined
  #left: ((waiter: JobWaiter) => void) | undefined
  #waiting = true

  constructor(id: string, options: JobWaiterOptions, about: WaiterSurroundings) {
    this.id = id
    this.options = options
    this.#about = about
    const { clock, deadlines } = about
    refProcess(clock)
    this.#since = clock.now()
    const { timeout, signal, onProgress } = options
    this.#context = onProgress && new AsyncContext()
    this.#together = timeout === about.timeout
    if (timeout !== Number.POSITIVE_INFINITY) {
      if (this.#together) deadlines.add(this, timeout)
      else this.#timer = clock.after(timeout, () => this.expire())
    }
    this.#unlisten = signal && onAbort(signal, () => this.#abort())
  }

  get promise(): Promise<unknown> {
    return this.#deferred.promise
  }

  /** Calls `left` when it gives up by itself. */
  begin(left: (waiter: JobWaiter) => void): void {
    this.#left = left
  }

  /** Shows what the handler said. */
  progress(value: unknown): void {
    const { onProgress } = this.options
    if (onProgress) callHook(this.#context, 'onProgress', onProgress, value)
  }

  expire(): void {
    const { command, timeout } = this.options
    // An outcome that comes meanwhile is as good as one in time.
    void this.#about.explain(command).then((about) => {
      const message = `No outcome ${about}, within ${timeout} ms; the job ${this.id} goes on`
      this.#giveUp(new TimeoutError(message, { key: this.id }))
    })
  }

  #abort(): void {
    const cause = this.options.signal?.reason
    this.#giveUp(new AbortedError('The submitter aborted its waiting', { key: this.id, cause }))
  }

  #giveUp(error: Error): void {
    if (!this.#waiting) return
    this.reject(error)
    this.#left?.(this)
  }

  resolve(result: unknown): void {
    if (!this.#end('result')) return
    this.#deferred.resolve(result)
  }

  reject(error: unknown): void {
    if (!this.#end(error instanceof SoloflightError ? error.code : 'error')) return
    this.#deferred.reject(error)
  }

  #end(outcome: string): boolean {
    if (!this.#waiting) return false
    this.#waiting = false
    unrefProcess(this.#about.clock)
    this.#resume?.()
    if (this.#together) this.#about.deadlines.delete(this, this.#about.timeout)
    else this.#timer?.cancel()
    this.#unlisten?.()
    if (listened('wait')) tell('wait', { key: this.id, ms: this.#about.clock.now() - this.#since, outcome })
    return true
  }
}
