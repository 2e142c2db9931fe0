import assert from 'node:assert/strict'
import { availableParallelism, loadavg } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

/** So many processes at once, on average over the last minute, still leave each processor to those that have to be in time. */
const USUAL_LOAD = 3 * availableParallelism()

/** An upper bound on a time may be exceeded by this, ms: by more on a machine that has more to run than the tests alone. */
export const EPSILON: number = Math.round(500 * Math.max(1, (loadavg()[0] ?? 0) / USUAL_LOAD))

export interface UntilOptions {
  /** The fact, which completes the message "waited 10000 ms for …". */
  what: string
  /** The wait fails after this time, ms. @default 10000 */
  timeout?: number
  /** Interval of polls, ms. @default 5 */
  every?: number
}

export type Truthy<T> = Exclude<T, undefined | null | false | 0 | ''>

/**
 * Polls a fact until it is truthy, and resolves to it. A fact that throws is not yet true; its last error becomes the
 * `cause` of the failure. A fact that never settles fails at the timeout as well.
 */
export async function until<T>(fact: () => T | Promise<T>, options: UntilOptions): Promise<Truthy<T>> {
  const { what, timeout = 10_000, every = 5 } = options
  const deadline = new AbortController()
  const timer = setTimeout(() => deadline.abort(), timeout)
  const expired = new Promise<undefined>((resolve) => {
    deadline.signal.addEventListener('abort', () => resolve(undefined))
  })
  let cause: unknown
  try {
    while (!deadline.signal.aborted) {
      try {
        const value = await Promise.race([expired, fact()])
        if (value) return value as Truthy<T>
      } catch (error) {
        cause = error
      }
      await Promise.race([expired, sleep(every)])
    }
  } finally {
    clearTimeout(timer)
  }
  throw new Error(`waited ${timeout} ms for ${what}`, { cause })
}

/** Resolves to the error that a promise rejects with. Fails if the promise is fulfilled. */
export async function rejectionOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  return assert.fail('the promise was fulfilled')
}

/** Resolves as the promise does within `ms`, and to 'pending' otherwise. */
export function soon<T>(promise: Promise<T>, ms: number = EPSILON): Promise<T | 'pending'> {
  const late = new Promise<'pending'>((resolve) => setTimeout(resolve, ms, 'pending').unref())
  return Promise.race([promise, late])
}

/** Resolves to the time that an action takes, ms. */
export async function took(act: () => unknown): Promise<number> {
  const start = performance.now()
  await act()
  return performance.now() - start
}

/**
 * Resolves to the outcome of a call and the time until then, ms. The clock of a promise starts after what it stands for: pass a
 * function where the time must not be too short.
 */
export async function timed(
  call: Promise<unknown> | (() => Promise<unknown>),
): Promise<{ value?: unknown; error?: unknown; ms: number }> {
  const start = performance.now()
  const promise = typeof call === 'function' ? call() : call
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  )
  return { ...outcome, ms: performance.now() - start }
}
