import { performance } from 'node:perf_hooks'
import process from 'node:process'
import timers from 'node:timers'

/**
 * The timers and ticks of the process, captured when this module is loaded. Tests that install fake timers (Vitest, Jest,
 * Sinon, node:test) would otherwise stop a locker or queue that outlives them. Fake timers also replace the exports of
 * node:timers, and an imported name follows its export, so each function is held by a constant.
 */
export const setTimer: typeof timers.setTimeout = timers.setTimeout
export const setRepeatingTimer: typeof timers.setInterval = timers.setInterval
export const clearTimer: typeof timers.clearTimeout = timers.clearTimeout
export const nextTurn: typeof timers.setImmediate = timers.setImmediate
export const nextTick: typeof process.nextTick = process.nextTick.bind(process)
export const microtask: typeof queueMicrotask = queueMicrotask
/** Milliseconds since the process started; monotonic. */
export const now: () => number = performance.now.bind(performance)
/** Microseconds of the wall clock at a moment of {@link now}. */
export const wallMicros: (at: number) => number = wallMicrosFrom(performance.timeOrigin)

function wallMicrosFrom(origin: number): (at: number) => number {
  return (at) => Math.floor((origin + at) * 1000)
}
