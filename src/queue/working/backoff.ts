import {
  checkDuration,
  checkOptions,
  numberBetween,
  type OptionTable,
  oneOf,
  REQUIRED,
} from '../../kernel/options.ts'
import { MAX_DELAY } from '../store/store.ts'

/** Delays between the attempts of a job. */
export interface BackoffOptions {
  /** 'fixed' always waits `delay`; 'exponential' doubles it after each failed attempt. */
  type: 'fixed' | 'exponential'
  /** Delay after the first failed attempt, ms. */
  delay: number
  /**
   * Upper limit of a delay, ms.
   * @default 3_600_000
   */
  max?: number | undefined
  /**
   * Largest fraction of a delay, 0 to 1, that is subtracted at random. It spreads the retries of jobs that failed together.
   * @default 0.5 for 'exponential', else 0
   */
  jitter?: number | undefined
}

/** Delay between attempts: a number of ms, or the options it is computed from. */
export type Backoff = number | BackoffOptions

/** Returns the delay until the next attempt, ms. `failed`: number of failed attempts; `error`: of the last one. */
export type BackoffFunction = (failed: number, error: unknown) => number

const DEFAULT_MAX_DELAY = 60 * 60_000

const BACKOFF: OptionTable<BackoffOptions> = {
  type: [oneOf(['fixed', 'exponential']), REQUIRED],
  delay: [checkDuration, REQUIRED],
  max: [checkDuration],
  jitter: [numberBetween(0, 1)],
}

/** Checks a backoff that is sent with a job. @throws TypeError */
export function checkBackoff(name: string, value: unknown): void {
  if (typeof value === 'number') checkDuration(name, value)
  else checkOptions(value as BackoffOptions, BACKOFF, name)
}

/** Delay until the next attempt, ms. `failed`: number of failed attempts, from 1. */
export function backoffDelay(backoff: Backoff | BackoffFunction, failed: number, error: unknown): number {
  if (typeof backoff === 'function') return wholeMs(backoff(failed, error))
  if (typeof backoff === 'number') return wholeMs(backoff)
  const { type, delay, max = DEFAULT_MAX_DELAY, jitter = type === 'exponential' ? 0.5 : 0 } = backoff
  const full = type === 'exponential' ? delay * 2 ** Math.min(failed - 1, 50) : delay
  return wholeMs(Math.min(full, max) * (1 - Math.random() * jitter))
}

/** A whole number of ms from 0 to MAX_DELAY, whatever a user's function returned. */
function wholeMs(ms: unknown): number {
  const whole = Math.round(Number(ms))
  return whole > 0 ? Math.min(whole, MAX_DELAY) : 0
}
