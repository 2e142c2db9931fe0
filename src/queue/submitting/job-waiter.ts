import { AbortedError, TimeoutError } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import type { Clock } from '../../kernel/event-loop.ts'
import { AsyncContext } from '../../kernel/event-loop.ts'
import { notifyProgress } from '../../kernel/hooks.ts'
import type { Deadlines } from '../../kernel/waiter.ts'
import { BaseWaiter } from '../../kernel/waiter.ts'
import { lendSlot } from '../../kernel/work-scheduler.ts'

/** Options of a waiter. */
export interface JobWaiterOptions {
  command: string
  timeout: number
  signal: AbortSignal | undefined
  onProgress: ((value: unknown) => void) | undefined
}

/** Dependencies of a waiter. All waiters of a queue share them. */
export interface JobWaiterDeps {
  readonly clock: Clock
  readonly deadlines: Deadlines
  /** Describes a command and its workers in the message of a TimeoutError. Never rejects. */
  explain(command: string): Promise<string>
}

/** Waits for the outcome of a job on behalf of one caller. */
export class JobWaiter extends BaseWaiter {
  readonly id: string
  readonly options: JobWaiterOptions
  readonly #deps: JobWaiterDeps
  /** Context of the caller, in which `onProgress` runs; undefined without `onProgress`. */
  readonly #context: AsyncContext | undefined
  /** Takes back the slot that the calling work lends while it waits. */
  readonly #reclaimSlot = lendSlot()
  #onLeave: ((waiter: JobWaiter) => void) | undefined

  constructor(id: string, options: JobWaiterOptions, about: JobWaiterDeps) {
    const { timeout, signal, onProgress } = options
    super({ key: id, timeout, signal }, about.clock, about.deadlines, false)
    this.id = id
    this.options = options
    this.#deps = about
    this.#context = onProgress && new AsyncContext()
  }

  /** Sets the function that is called when the waiter ends. */
  onLeave(listener: (waiter: JobWaiter) => void): void {
    this.#onLeave = listener
  }

  /** Passes progress of the handler to `onProgress`. */
  progress(codec: Codec, bytes: Buffer): void {
    const { onProgress } = this.options
    if (onProgress) notifyProgress(codec, bytes, this.#context, onProgress)
  }

  expire(): void {
    const { command, timeout } = this.options
    // An outcome that arrives before the explanation is still delivered.
    void this.#deps.explain(command).then((explanation) => {
      const message = `No outcome ${explanation}, within ${timeout} ms; the job ${this.id} goes on`
      this.reject(new TimeoutError(message, { key: this.id }))
    })
  }

  protected onAborted(cause: unknown): void {
    this.reject(new AbortedError('The submitter aborted its waiting', { key: this.id, cause }))
  }

  protected onEnded(): void {
    this.#reclaimSlot?.()
    this.#onLeave?.(this)
  }
}
