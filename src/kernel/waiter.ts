import pDefer from 'p-defer'
import { SoloflightError } from '../errors.ts'
import { TransientSet } from './collections.ts'
import { type Clock, EVENT_LOOP_STALL_MS, refProcess, type Timer, unrefProcess } from './event-loop.ts'
import { emit, hasListeners } from './telemetry.ts'

// Waiting: for a deadline, for a signal, and for an outcome within both.

/** An operation with a deadline. */
export interface Pending {
  /** Time of the clock, ms. Written by {@link Deadlines.add}. */
  deadline: number
  /** Called once the deadline has passed. */
  expire(): void
}

/** Durations above this are rounded up to steps of {@link LANE_STEP_MS}, so that any number of them share few timers. */
const EXACT_UP_TO_MS = 1000
const LANE_STEP_MS = 25

/** Operations of about the same duration. They expire in the order in which they were added, so one timer serves all. */
class Lane {
  readonly #clock: Clock
  /** Called when the lane is empty. */
  readonly #onEnd: () => void
  readonly #pending = new TransientSet<Pending>()
  #timer: Timer | undefined

  constructor(clock: Clock, onEnd: () => void) {
    this.#clock = clock
    this.#onEnd = onEnd
  }

  add(pending: Pending, timeout: number): void {
    this.#pending.add(pending)
    this.#timer ??= this.#clock.after(timeout, this.#check, true)
  }

  delete(pending: Pending): void {
    if (this.#pending.delete(pending) && this.#pending.size === 0) this.#end()
  }

  #end(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#onEnd()
  }

  readonly #check = (): void => {
    const now = this.#clock.now()
    const [first] = this.#pending
    // After a blocked event loop, replies may lie unread in the socket. They are read before the next timer fires.
    const late = first !== undefined && now - first.deadline > EVENT_LOOP_STALL_MS
    if (late) this.#timer = this.#clock.after(0, () => this.#expire(now), true)
    else this.#expire(now)
  }

  #expire(now: number): void {
    try {
      for (const pending of this.#pending) {
        if (pending.deadline > now) break
        this.#pending.delete(pending)
        pending.expire()
      }
    } finally {
      // Even if `expire` throws: the other operations keep their deadlines.
      const [next] = this.#pending
      if (next) this.#timer = this.#clock.after(next.deadline - now, this.#check, true)
      else this.#end()
    }
  }
}

/** Deadlines of operations that mostly end in time. All operations of one duration share a timer. */
export class Deadlines {
  readonly #clock: Clock
  readonly #lanes = new Map<number, Lane>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Calls `pending.expire` after `timeout` ms unless it is deleted before; up to 25 ms later for long timeouts. */
  add(pending: Pending, timeout: number): void {
    pending.deadline = this.#clock.now() + timeout
    const duration = laneOf(timeout)
    const known = this.#lanes.get(duration)
    if (known) return known.add(pending, timeout)
    const lane: Lane = new Lane(this.#clock, () => {
      if (this.#lanes.get(duration) === lane) this.#lanes.delete(duration)
    })
    this.#lanes.set(duration, lane)
    lane.add(pending, timeout)
  }

  /** Removes an operation that has ended in time. `timeout` must be the one that it was added with. */
  delete(pending: Pending, timeout: number): void {
    this.#lanes.get(laneOf(timeout))?.delete(pending)
  }
}

/** The duration that names the lane of a timeout, ms. */
function laneOf(timeout: number): number {
  return timeout <= EXACT_UP_TO_MS ? timeout : Math.ceil(timeout / LANE_STEP_MS) * LANE_STEP_MS
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
