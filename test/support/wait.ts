import { setTimeout as sleep } from 'node:timers/promises'

export interface UntilOptions {
  /** What is awaited, as it completes the sentence "waited 5000 ms for …". */
  what: string
  /** Milliseconds after which the wait fails. @default 5000 */
  timeout?: number
  /** Milliseconds between two looks. @default 5 */
  every?: number
}

export type Truthy<T> = Exclude<T, undefined | null | false | 0 | ''>

/**
 * Looks at a fact until it is truthy and returns it. A fact that throws is not yet true; its last error
 * becomes the `cause` of the failure. A fact that never settles fails at the timeout as well.
 */
export async function until<T>(fact: () => T | Promise<T>, options: UntilOptions): Promise<Truthy<T>> {
  const { what, timeout = 5000, every = 5 } = options
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
