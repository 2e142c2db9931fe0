import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { performance } from 'node:perf_hooks'
import process from 'node:process'
import timers from 'node:timers'
import { Fifo } from './collections.ts'

// Timers and ticks of the process, async contexts, the clock, and what keeps the process alive.

/**
 * The timers and ticks of the process, captured when this module is loaded. Tests that install fake timers (Vitest, Jest,
 * Sinon, node:test) would otherwise stop a locker or queue that outlives them. Fake timers also replace the exports of
 * node:timers, and an imported name follows its export, so each function is held by a constant.
 */
const setTimer = timers.setTimeout
const setRepeatingTimer = timers.setInterval
const clearTimer = timers.clearTimeout
export const nextTurn: typeof timers.setImmediate = timers.setImmediate
export const nextTick: typeof process.nextTick = process.nextTick.bind(process)
export const microtask: typeof queueMicrotask = queueMicrotask
/** Milliseconds since the process started; monotonic. */
const now: () => number = performance.now.bind(performance)
/** Microseconds of the wall clock at a time of {@link systemClock}. */
export const wallMicros: (at: number) => number = wallMicrosFrom(performance.timeOrigin)

function wallMicrosFrom(origin: number): (at: number) => number {
  return (at) => Math.floor((origin + at) * 1000)
}

/**
 * The work that is running, as its layer describes it. An {@link AsyncContext} leaves it out: handlers and hooks are not
 * part of the work that registered them.
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
const MAX_TIMEOUT_MS = 2 ** 31 - 1

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

/** Callbacks for the end of this tick. */
const atTickEnd = new Fifo<() => void>()

/** Calls `send` at the end of this tick, so that everything that one tick wants to send is sent together. */
export function atEndOfTick(send: () => void): void {
  atTickEnd.push(send)
  if (atTickEnd.size === 1) rootContext.run(() => nextTick(endTick))
}

/** Calls now what waits for the end of the tick: before user code that may block the event loop. Never throws. */
export function endTick(): void {
  for (let send = atTickEnd.shift(); send; send = atTickEnd.shift()) {
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
