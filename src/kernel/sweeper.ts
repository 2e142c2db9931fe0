import type { Clock } from './clock.ts'

/** Between two sweeps, ms. */
const SWEEP_EVERY = 1000

/**
 * Has what is over forgotten. The returned function is called when there may be something: then `sweep` is called every
 * second, until it returns that nothing is left.
 */
export function sweeper(clock: Clock, sweep: () => boolean): () => void {
  let pending = false
  const sweepLater = (): void => {
    if (pending) return
    pending = true
    clock.after(SWEEP_EVERY, fired, true)
  }
  const fired = (): void => {
    pending = false
    if (sweep()) sweepLater()
  }
  return sweepLater
}
