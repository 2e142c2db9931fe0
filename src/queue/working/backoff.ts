import { checkChoice, checkDuration, checkFields, checkNumber } from '../../kernel/options.ts'
import { MAX_DELAY } from '../store/store.ts'

/** Pauses between the attempts of a job. */
export interface BackoffOptions {
  /** 'exponential' doubles `delay` after each attempt. */
  type: 'fixed' | 'exponential'
  /** ms; the first pause. */
  delay: number
  /**
   * ms; the longest pause.
   * @default 3_600_000
   */
  max?: number | undefined
  /**
   * Up to this part of a pause, 0 to 1, is taken off at random, so that what failed together does not come back together.
   * @default 0.5 for 'exponential', else 0
   */
  jitter?: number | undefined
}

/** ms between attempts, or how they come about. */
export type Backoff = number | BackoffOptions

/** ms until the next attempt, `failed` being how many have failed. */
export type BackoffFunction = (failed: number, error: unknown) => number

const LONGEST = 60 * 60_000

/** Checks a backoff that can be sent with a job. */
export function checkBackoff(value: unknown): void {
  if (typeof value === 'number') return void checkDuration('backoff', value)
  checkFields('backoff', value, ['type', 'delay', 'max', 'jitter'])
  const { type, delay, max, jitter } = value as BackoffOptions
  checkChoice('backoff.type', type, ['fixed', 'exponential'])
  checkDuration('backoff.delay', delay)
  if (max !== undefined) checkDuration('backoff.max', max)
  if (jitter !== undefined) checkNumber('backoff.jitter', jitter, 0, 1)
}

/** ms until the next attempt of a job of which `failed` have failed: 1 after the first. */
export function pauseAfter(backoff: Backoff | BackoffFunction, failed: number, error: unknown): number {
  if (typeof backoff === 'function') return wholeMs(backoff(failed, error))
  if (typeof backoff === 'number') return wholeMs(backoff)
  const { type, delay, max = LONGEST, jitter = type === 'exponential' ? 0.5 : 0 } = backoff
  const pause = type === 'exponential' ? delay * 2 ** Math.min(failed - 1, 50) : delay
  return wholeMs(Math.min(pause, max) * (1 - Math.random() * jitter))
}

/** What a function returns is the user's: nothing of it may break the retry. */
function wholeMs(ms: unknown): number {
  const whole = Math.round(Number(ms))
  return whole > 0 ? Math.min(whole, MAX_DELAY) : 0
}
