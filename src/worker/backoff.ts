const SHORTEST = 100
const LONGEST = 10_000

/**
 * Pause after a number of failures in a row, ms: doubled each time from 100 ms to 10 s. A random part of up to a half is taken
 * off, so that workers which lost the same gateway do not return in step.
 */
export function backoff(failures: number): number {
  const pause = Math.min(SHORTEST * 2 ** Math.min(failures - 1, 20), LONGEST)
  return pause * (1 - Math.random() / 2)
}
