import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { newId } from '../../src/kernel/keys.ts'

/** A seeded random number generator (splitmix32). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** From 0 up to 1. */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0
    let mixed = this.#state ^ (this.#state >>> 16)
    mixed = Math.imul(mixed, 0x21f0aaad)
    mixed ^= mixed >>> 15
    mixed = Math.imul(mixed, 0x735a2d97)
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32
  }

  between(low: number, high: number): number {
    return low + (high - low) * this.next()
  }

  /** A whole number from 0 up to `count`. */
  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  /** A random item of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  /** A random name, by weight. */
  weighted<T extends string>(weights: Readonly<Record<T, number>>): T {
    const entries = Object.entries<number>(weights)
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0)
    for (const [name, weight] of entries) {
      left -= weight
      if (left < 0) return name as T
    }
    return entries[0]?.[0] as T
  }

  /** A random time between events with the mean `every`. */
  exponential(every: number): number {
    return -Math.log(1 - this.next()) * every
  }
}

/** Runs a function with all randomness and timers of this process under control: a seed repeats the whole run. */
export async function underControl<T>(
  seed: number,
  setTimer: (ms: number, run: () => void) => () => void,
  run: () => Promise<T>,
): Promise<T> {
  const original = {
    random: Math.random,
    fill: crypto.randomFillSync,
    set: globalThis.setTimeout,
    turn: globalThis.setImmediate,
  }
  const random = new Random(seed ^ 0x5bd1e995)
  let filled = false
  Math.random = () => random.next()
  crypto.randomFillSync = ((buffer: Buffer) => {
    filled = true
    for (let at = 0; at < buffer.length; at++) buffer[at] = random.below(256)
    return buffer
  }) as typeof crypto.randomFillSync
  // lru-cache reads the time once per ms, and ends that ms by a timer of the process.
  globalThis.setTimeout = ((callback: () => void, ms = 0) => {
    const cancel = setTimer(ms, callback)
    return { unref: () => {}, ref: () => {}, [Symbol.dispose]: cancel }
  }) as unknown as typeof setTimeout
  // The budget of a turn counts the time of this process instead of that of the run.
  globalThis.setImmediate = ((callback: () => void) => {
    setTimer(0, callback)
  }) as unknown as typeof setImmediate
  syncBuiltinESMExports()
  // Ids are drawn from a pool: it holds random bytes of the run before.
  while (!filled) newId()
  try {
    return await run()
  } finally {
    Math.random = original.random
    crypto.randomFillSync = original.fill
    globalThis.setTimeout = original.set
    globalThis.setImmediate = original.turn
    syncBuiltinESMExports()
  }
}
