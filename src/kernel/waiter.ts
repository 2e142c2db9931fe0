import pDefer from 'p-defer'
import { SoloflightError } from '../errors.ts'
import { emit, hasListeners } from './telemetry.ts'
import {
  type Clock,
  type Deadlines,
  MAX_TIMEOUT_MS,
  type Pending,
  rootContext,
  setRepeatingTimer,
  systemClock,
  type Timer,
} from './time.ts'

// Waiting for an outcome: until a deadline, a signal, and with progress; the process stays alive meanwhile.

/** How often {@link refProcess} was called more than {@link unrefProcess}. */
let references = 0
/** A timer whose callback does nothing. */
let keepAlive: NodeJS.Timeout | undefined

/**
 * Keeps the process alive until {@link unrefProcess} was called as often. Waiters and workers call it. Sockets do not
 * suffice: there is none while Redis is unreachable, and none in embedded mode. Has no effect with a simulated clock.
 */
export function refProcess(clock: Clock): void {
  if (clock !== systemClock) return
  references++
  if (references > 1) return
  keepAlive ??= rootContext.run(() => setRepeatingTimer(() => {}, MAX_TIMEOUT_MS))
  keepAlive.ref()
}

/** Undoes one call of {@link refProcess} with the same clock. */
export function unrefProcess(clock: Clock): void {
  if (clock !== systemClock) return
  references--
  if (references === 0) keepAlive?.unref()
}

/** The callbacks of one signal share one listener: Node warns of more than ten listeners on a signal. */
interface SignalListeners {
  readonly calls: Set<{ aborted: () => void }>
  readonly listener: () => void
}

const listenersOf = new WeakMap<AbortSignal, SignalListeners>()

/** Calls `aborted` once when the signal aborts; it must not have aborted yet. The returned function unsubscribes. */
export function onAbort(signal: AbortSignal, aborted: () => void): () => void {
  const waiting = listenersOf.get(signal) ?? listen(signal)
  const call = { aborted }
  waiting.calls.add(call)
  return () => {
    if (!waiting.calls.delete(call) || waiting.calls.size > 0) return
    signal.removeEventListener('abort', waiting.listener)
    if (listenersOf.get(signal) === waiting) listenersOf.delete(signal)
  }
}

function listen(signal: AbortSignal): SignalListeners {
  const calls: SignalListeners['calls'] = new Set()
  const listener = () => {
    listenersOf.delete(signal)
    for (const call of calls) if (calls.delete(call)) call.aborted()
  }
  const waiting = { calls, listener }
  signal.addEventListener('abort', listener, { once: true })
  listenersOf.set(signal, waiting)
  return waiting
}

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
  /** Time by the clock, ms. Written by {@link Deadlines} when the waiter is created: the timeout counts from the call. */
  deadline: number = Number.POSITIVE_INFINITY
  readonly #options: WaitOptions
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #background: boolean
  /** When it began to wait, by the clock, ms. */
  readonly since: number
  readonly #deferred = pDefer<unknown>()
  readonly #stopListening: (() => void) | undefined
  #state: 'waiting' | 'settled' = 'waiting'

  constructor(awaited: WaitOptions, clock: Clock, deadlines: Deadlines, background: boolean) {
    this.#options = awaited
    this.#clock = clock
    this.#deadlines = deadlines
    this.#background = background
    this.since = clock.now()
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
    if (hasListeners('wait')) emit('wait', { key, ms: this.#clock.now() - this.since, outcome })
    return true
  }
}

const PROGRESS_INTERVAL_MS = 50

/**
 * Sends the progress of a work: the first immediately, later ones at most every 50 ms. Of several within that time only the
 * last is sent. Best effort: `send` must not throw, and its completion is not awaited.
 */
export class ProgressThrottle {
  readonly #clock: Clock
  readonly #send: (bytes: Buffer) => void
  /** The latest progress that was not sent yet. */
  #pending: Buffer | undefined
  /** Runs until the next send is allowed. */
  #timer: Timer | undefined

  constructor(clock: Clock, send: (bytes: Buffer) => void) {
    this.#clock = clock
    this.#send = send
  }

  push(bytes: Buffer): void {
    this.#pending = bytes
    if (!this.#timer) this.#flush()
  }

  readonly #flush = (): void => {
    const bytes = this.#pending
    this.#timer = undefined
    if (!bytes) return
    this.#pending = undefined
    this.#send(bytes)
    this.#timer = this.#clock.after(PROGRESS_INTERVAL_MS, this.#flush, true)
  }

  /** Discards what was not sent yet. */
  stop(): void {
    this.#pending = undefined
    this.#timer?.cancel()
    this.#timer = undefined
  }
}
