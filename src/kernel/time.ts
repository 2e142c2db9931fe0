import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { performance } from 'node:perf_hooks'
import process from 'node:process'
import timers from 'node:timers'
import { Fifo, TransientSet } from './collections.ts'

// Timers and ticks of the process, async contexts, the clock, deadlines, and the timer of a lease.

/**
 * The timers and ticks of the process, captured when this module is loaded. Tests that install fake timers (Vitest, Jest,
 * Sinon, node:test) would otherwise stop a locker or queue that outlives them. Fake timers also replace the exports of
 * node:timers, and an imported name follows its export, so each function is held by a constant. Fake timers that are
 * installed before this module is loaded are captured: calls then hang.
 */
const setTimer = timers.setTimeout
export const setRepeatingTimer: typeof globalThis.setInterval = timers.setInterval
const clearTimer = timers.clearTimeout
export const nextTurn: typeof globalThis.setImmediate = timers.setImmediate
export const nextTick: NodeJS.Process['nextTick'] = process.nextTick.bind(process)
export const microtask: typeof queueMicrotask = queueMicrotask
/** Milliseconds since the process started; monotonic. */
const now: () => number = performance.now.bind(performance)
/** Microseconds of the wall clock at a time of {@link systemClock}. */
export const wallMicros: (at: number) => number = wallMicrosFrom(performance.timeOrigin)

function wallMicrosFrom(origin: number): (at: number) => number {
  return (at) => Math.floor((origin + at) * 1000)
}

/**
 * The work that is running: `callingWork` in work-scheduler.ts. An {@link AsyncContext} leaves it out: handlers and hooks are
 * not part of the work that registered them.
 */
export const runningWork: AsyncLocalStorage<object | undefined> = new AsyncLocalStorage()

/** Runs a function outside of the running work: that work does not wait for what the function starts. */
export function outsideWork<T>(run: () => T): T {
  return runningWork.run(undefined, run)
}

/**
 * The async context in which it is created: the stores of all AsyncLocalStorages. User code runs in the context of the call
 * that started or registered it. It keeps these stores alive, so only objects of that call may refer to it.
 */
export class AsyncContext {
  readonly #resource: AsyncResource = outsideWork(
    () => new AsyncResource('soloflight', { requireManualDestroy: true }),
  )

  run<T>(run: () => T): T {
    return this.#resource.runInAsyncScope(run)
  }
}

/**
 * The context in which the package was loaded. Everything that outlives a call (connections, timers, batches, schedulers)
 * starts in it. Otherwise it would keep the stores of the first call alive, and other calls would see them.
 */
export const rootContext: AsyncContext = new AsyncContext()

/** A pending timer, as `after` of the clock returned it. */
export interface Timer {
  /** Cancels it. Does nothing when it has fired. */
  cancel(): void
}

/**
 * A monotonic clock and its timers: steps of the wall clock have no effect. Tests inject a simulated one.
 */
export interface Clock {
  /** Milliseconds since an arbitrary moment; never goes back. */
  now(): number
  /**
   * Calls `run` once after `ms`, in the root async context: a timer that is set again and again would otherwise keep the
   * AsyncLocalStorage stores of the first call alive. `background: true`: does not keep the process alive.
   */
  after(ms: number, run: () => void, background?: boolean): Timer
}

/** Node's timers overflow above this, and fire at once. */
export const MAX_TIMEOUT_MS: number = 2 ** 31 - 1

class NodeTimer implements Timer {
  readonly #handle: NodeJS.Timeout | undefined

  constructor(ms: number, run: () => void, background: boolean) {
    // A longer delay, 24 days, never fires: firing early would be wrong.
    if (ms <= MAX_TIMEOUT_MS) this.#handle = rootContext.run(() => setTimer(run, Math.max(0, Math.ceil(ms))))
    // In jsdom timers are numbers, and have no `unref`.
    if (background) this.#handle?.unref?.()
  }

  cancel(): void {
    clearTimer(this.#handle)
  }
}

/** The process's own monotonic clock and timers. */
export const systemClock: Clock = {
  now,
  after: (ms, run, background = false) => new NodeTimer(ms, run, background),
}

/** A timer that fires this much too late shows that the event loop was blocked: replies may lie unread in the socket. */
export const EVENT_LOOP_STALL_MS = 20

/** Callbacks for the end of this turn of the event loop. */
const atTurnEnd = new Fifo<() => void>()

/**
 * Calls `send` at the end of this turn of the event loop, after all messages and requests that have arrived were read: so what they
 * want to send is sent together. Requests of many sockets come in one turn, but each in a tick of its own.
 */
export function atEndOfTurn(send: () => void): void {
  atTurnEnd.push(send)
  if (atTurnEnd.size === 1) rootContext.run(() => nextTurn(endTurn))
}

/** Calls now what waits for the end of the turn: before user code that may block the event loop. Never throws. */
export function endTurn(): void {
  for (let send = atTurnEnd.shift(); send; send = atTurnEnd.shift()) {
    try {
      send()
    } catch (error) {
      // Becomes an uncaught exception of its own, so that the other callbacks and the caller go on.
      nextTick(() => {
        throw error
      })
    }
  }
}

/** An operation with a deadline. */
export interface Pending {
  /** Time by the clock, ms. Written by {@link Deadlines.add}. */
  deadline: number
  /** Called once the deadline has passed. */
  expire(): void
}

/** Durations above this are rounded up to steps of {@link DEADLINE_STEP_MS}, so that any number of them share few timers. */
const EXACT_UP_TO_MS = 1000
const DEADLINE_STEP_MS = 25

/** Operations of about the same duration. They expire in the order in which they were added, so one timer serves all. */
class DeadlineGroup {
  readonly #clock: Clock
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
  readonly #groups = new Map<number, DeadlineGroup>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Calls `pending.expire` after `timeout` ms unless it is deleted before; up to 25 ms later for long timeouts. */
  add(pending: Pending, timeout: number): void {
    pending.deadline = this.#clock.now() + timeout
    const duration = groupOf(timeout)
    const known = this.#groups.get(duration)
    if (known) return known.add(pending, timeout)
    const group: DeadlineGroup = new DeadlineGroup(this.#clock, () => {
      if (this.#groups.get(duration) === group) this.#groups.delete(duration)
    })
    this.#groups.set(duration, group)
    group.add(pending, timeout)
  }

  /** Removes an operation that has ended in time. `timeout` must be the one that it was added with. */
  delete(pending: Pending, timeout: number): void {
    this.#groups.get(groupOf(timeout))?.delete(pending)
  }
}

/** The duration that names the group of a timeout, ms. */
function groupOf(timeout: number): number {
  return timeout <= EXACT_UP_TO_MS ? timeout : Math.ceil(timeout / DEADLINE_STEP_MS) * DEADLINE_STEP_MS
}

/** A lease is renewed when this part of it has passed. */
export const RENEW_AFTER: number = 1 / 3

/** Delay after which a renewal without a reply is repeated, ms. */
export function renewalRetryPause(lease: number): number {
  return Math.min(lease / 10, 500)
}

/** How long before its end a lease counts as lost, ms: the time that the abort signal needs to take effect. */
export function lossMargin(lease: number): number {
  return Math.min(200, lease / 10)
}

/** Receives the events of a lease. Each is raised once for each time that its moment was set. */
export interface LeaseTimerListener {
  /** The lease must be renewed now. Answer with `extend`, `retryRenewal` or `stop`. */
  onRenewalDue(): void
  /** The lease was not extended in time: another process may hold it. */
  onLeaseExpired(): void
  /** The lease has been held for `maxHold`. */
  onMaxHold(): void
}

const NEVER = Number.POSITIVE_INFINITY

/**
 * Watches the three moments of a lease with one timer:
 *
 * ```
 * request sent                                         expires
 * |---------------------- lease -------------------------|
 *     reply |---- 1/3 ----| renewal is due   |- margin --|
 *                                            | counts as lost
 * held since |------------- maxHold ---------------| held for too long
 * ```
 *
 * The lease counts from the moment at which the request that extended it was sent, since the server granted it later than
 * that. The renewal counts from the reply, so that a slow reply does not cause another renewal at once. All times are by
 * the clock, ms.
 */
export class LeaseTimer {
  readonly #clock: Clock
  readonly #listener: LeaseTimerListener
  #renewAt = NEVER
  /** When the lease counts as lost, by the clock; Infinity: it is not watched. Written by this class. */
  expiresAt: number = NEVER
  #maxHoldAt: number
  #timer: Timer | undefined
  #timerAt = NEVER

  /** `maxHold`: ms from now. */
  constructor(clock: Clock, maxHold: number, listener: LeaseTimerListener) {
    this.#clock = clock
    this.#listener = listener
    this.#maxHoldAt = clock.now() + maxHold
  }

  /** The lease, of `lease` ms, was extended by a request that was sent at `sentAt`. */
  extend(sentAt: number, lease: number): void {
    this.expiresAt = sentAt + lease - lossMargin(lease)
    this.#renewAt = this.#clock.now() + lease * RENEW_AFTER
    this.arm()
  }

  /** Raises `onRenewalDue` now. */
  renewNow(): void {
    this.#renewAt = this.#clock.now()
    this.arm()
  }

  /** The renewal of a lease of `lease` ms got no reply: raises `onRenewalDue` again after a pause. */
  retryRenewal(lease: number): void {
    this.#renewAt = this.#clock.now() + renewalRetryPause(lease)
    this.arm()
  }

  /** Stops renewing and watching the lease. Only `onMaxHold` may still be raised. */
  abandon(): void {
    this.#renewAt = NEVER
    this.expiresAt = NEVER
    this.arm()
  }

  /** Raises no further events. */
  stop(): void {
    this.#maxHoldAt = NEVER
    this.abandon()
  }

  /** Sets the timer to the next moment. */
  arm(): void {
    const next = Math.min(this.#renewAt, this.expiresAt, this.#maxHoldAt)
    if (next === this.#timerAt) return
    this.#timer?.cancel()
    this.#timerAt = next
    this.#timer =
      next === NEVER ? undefined : this.#clock.after(next - this.#clock.now(), this.#onTimer, true)
  }

  readonly #onTimer = (): void => {
    this.#timerAt = NEVER
    this.check()
    this.arm()
  }

  check(): void {
    const now = this.#clock.now()
    if (now >= this.expiresAt) {
      this.expiresAt = NEVER
      this.#listener.onLeaseExpired()
    } else if (now >= this.#renewAt) {
      this.#renewAt = NEVER
      this.#listener.onRenewalDue()
    }
    if (now >= this.#maxHoldAt) {
      this.#maxHoldAt = NEVER
      this.#listener.onMaxHold()
    }
  }
}
