import pDefer from 'p-defer'
import { SoloflightError } from '../../errors.ts'
import { refProcess, unrefProcess } from '../redis/keep-alive.ts'
import { emit, hasListeners } from '../telemetry.ts'
import type { Clock } from '../time/clock.ts'
import type { Deadlines, Pending } from '../time/deadlines.ts'
import { onAbort } from './on-abort.ts'

/** What one waits for, and until when. */
export interface WaitOptions {
  readonly key: string
  /** ms; Infinity: without end. */
  readonly timeout: number
  /** Has not aborted yet. */
  readonly signal: AbortSignal | undefined
}

/**
 * One who waits for an outcome. Settles exactly once: by the outcome, its own deadline, or its own signal. Until then the
 * process stays alive, unless it is `background`. What it came to is told on the channel `soloflight:wait`.
 */
export abstract class BaseWaiter implements Pending {
  /** Of the clock, ms. Written by {@link Deadlines}, when the waiter is made: it counts from the call. */
  deadline: number = Number.POSITIVE_INFINITY
  readonly #options: WaitOptions
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #background: boolean
  readonly #since: number
  readonly #deferred = pDefer<unknown>()
  /** Stops listening to its signal. */
  readonly #stopListening: (() => void) | undefined
  #waiting = true

  constructor(awaited: WaitOptions, clock: Clock, deadlines: Deadlines, background: boolean) {
    this.#options = awaited
    this.#clock = clock
    this.#deadlines = deadlines
    this.#background = background
    this.#since = clock.now()
    const { timeout, signal } = awaited
    this.#stopListening = signal && onAbort(signal, () => this.onAborted(signal.reason))
    if (timeout !== Number.POSITIVE_INFINITY) deadlines.add(this, timeout)
    if (!background) refProcess(clock)
  }

  get promise(): Promise<unknown> {
    return this.#deferred.promise
  }

  /** Its time is over: rejects, now or soon. */
  abstract expire(): void

  /** Its signal has aborted: rejects. */
  protected abstract onAborted(cause: unknown): void

  /** It waits no longer. Called once, before it settles. */
  protected abstract onEnded(): void

  /** Does nothing once it is settled; nor does {@link reject}. */
  resolve(result: unknown, outcome = 'result'): void {
    if (this.#end(outcome)) this.#deferred.resolve(result)
  }

  reject(error: unknown): void {
    if (this.#end(error instanceof SoloflightError ? error.code : 'error')) this.#deferred.reject(error)
  }

  #end(outcome: string): boolean {
    if (!this.#waiting) return false
    this.#waiting = false
    if (!this.#background) unrefProcess(this.#clock)
    const { key, timeout } = this.#options
    if (this.deadline !== Number.POSITIVE_INFINITY) this.#deadlines.delete(this, timeout)
    this.#stopListening?.()
    this.onEnded()
    if (hasListeners('wait')) emit('wait', { key, ms: this.#clock.now() - this.#since, outcome })
    return true
  }
}
