import { AbortedError, TimeoutError } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import type { Clock } from '../../kernel/time/clock.ts'
import type { Deadlines } from '../../kernel/time/deadlines.ts'
import { BaseWaiter } from '../../kernel/waiting/waiter.ts'
import { AsyncContext, notifyProgress } from '../../kernel/work/user-code.ts'
import { lendSlot } from '../../kernel/work/work-scheduler.ts'

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
  readonly deadlines: Deadlines
  /** What a TimeoutError says of a command and its workers. Never rejects. */
  explain(command: string): Promise<string>
}

/** One who waits for the outcome of a job. */
export class JobWaiter extends BaseWaiter {
  readonly id: string
  readonly options: JobWaiterOptions
  readonly #about: WaiterSurroundings
  /** In which `onProgress` runs. */
  readonly #context: AsyncContext | undefined
  /** Ends the lending of the slot of the work that waits. */
  readonly #resume = lendSlot()
  #left: ((waiter: JobWaiter) => void) | undefined

  constructor(id: string, options: JobWaiterOptions, about: WaiterSurroundings) {
    const { timeout, signal, onProgress } = options
    super({ key: id, timeout, signal }, about.clock, about.deadlines, false)
    this.id = id
    this.options = options
    this.#about = about
    this.#context = onProgress && new AsyncContext()
  }

  /** Calls `left` when it waits no longer. */
  begin(left: (waiter: JobWaiter) => void): void {
    this.#left = left
  }

  /** Shows what the handler said. */
  progress(codec: Codec, bytes: Buffer): void {
    const { onProgress } = this.options
    if (onProgress) notifyProgress(codec, bytes, this.#context, onProgress)
  }

  expire(): void {
    const { command, timeout } = this.options
    // An outcome that comes meanwhile is as good as one in time.
    void this.#about.explain(command).then((about) => {
      const message = `No outcome ${about}, within ${timeout} ms; the job ${this.id} goes on`
      this.reject(new TimeoutError(message, { key: this.id }))
    })
  }

  protected onAborted(cause: unknown): void {
    this.reject(new AbortedError('The submitter aborted its waiting', { key: this.id, cause }))
  }

  protected onEnded(): void {
    this.#resume?.()
    this.#left?.(this)
  }
}
