import pDefer from 'p-defer'
import { SoloflightError } from '../../errors.ts'
import { refProcess, unrefProcess } from '../redis/keep-alive.ts'
import { emit, hasListeners } from '../telemetry.ts'
import type { Clock } from '../time/clock.ts'
import type { Deadlines, Pending } from '../time/deadlines.ts'
import { onAbort } from './on-abort.ts'

/** The resource that a waiter waits for, and its limits. */
export interface WaitOptions {
  readonly key: string
  /** ms; Infinity: no deadline. */
  readonly timeout: number
  /** Has not aborted yet. */
  readonly signal: AbortSignal | undefined
}

/**
 * Waits for an outcome. Settles exactly once: by the outcome, its deadline or its signal. It keeps the process alive until
 * then, unless it is a `background` waiter. Emits `wait` when it settles.
 */
export abstract class BaseWaiter implements Pending {
  /** Time of the clock, ms. Written by {@link Deadlines} when the waiter is created: the timeout counts from the call. */
  deadline: number = Number.POSITIVE_INFINITY
  readonly #options: WaitOptions
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #background: boolean
  readonly #since: number
  readonly #deferred = pDefer<unknown>()
  /** Unsubscribes from the signal. */
  readonly #stopListening: (() => void) | undefined
  #state: 'waiting' | 'settled' = 'waiting'

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

  /** The deadline has passed. Must reject, now or soon. */
  abstract expire(): void

  /** The signal has aborted. Must reject. */
  protected abstract onAborted(cause: unknown): void

  /** Called once, before the waiter settles. */
  protected abstract onEnded(): void

  /** Has no effect once the waiter is settled; nor has {@link reject}. */
  resolve(result: unknown, outcome = 'result'): void {
    if (this.#end(outcome)) this.#deferred.resolve(result)
  }

  reject(error: unknown): void {
    if (this.#end(error instanceof SoloflightError ? error.code : 'error')) this.#deferred.reject(error)
  }

  #end(outcome: string): boolean {
    if (this.#state === 'settled') return false
    this.#state = 'settled'
    if (!this.#background) unrefProcess(this.#clock)
    const { key, timeout } = this.#options
    if (this.deadline !== Number.POSITIVE_INFINITY) this.#deadlines.delete(this, timeout)
    this.#stopListening?.()
    this.onEnded()
    if (hasListeners('wait')) emit('wait', { key, ms: this.#clock.now() - this.#since, outcome })
    return true
  }
}
