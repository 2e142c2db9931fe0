import { performance } from 'node:perf_hooks'
import process from 'node:process'
import timers from 'node:timers'

/**
 * Timers, ticks and time as they are when this is loaded, taken once: tests that replace those of the process (fake
 * timers of Vitest, Jest, Sinon or node:test) would stop a locker or a queue that outlives them for good. The exports of
 * node:timers are replaced as well, and an imported name follows them, so each function is held by a constant.
 */
export const setTimer: typeof timers.setTimeout = timers.setTimeout
export const setRepeatingTimer: typeof timers.setInterval = timers.setInterval
export const clearTimer: typeof timers.clearTimeout = timers.clearTimeout
export const nextTurn: typeof timers.setImmediate = timers.setImmediate
export const nextTick: typeof process.nextTick = process.nextTick.bind(process)
export const microtask: typeof queueMicrotask = queueMicrotask
/** Milliseconds since the process began; monotonic. */
export const now: () => number = performance.now.bind(performance)
/** Microseconds of the wall clock at a moment of {@link now}. */
export const wallMicros: (at: number) => number = wallMicrosFrom(performance.timeOrigin)

function wallMicrosFrom(origin: number): (at: number) => number {
  return (at) => Math.floor((origin + at) * 1000)
}
