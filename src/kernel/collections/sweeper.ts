import type { Clock } from '../time/clock.ts'

/** Between two sweeps, ms. */
const SWEEP_INTERVAL_MS = 1000

/**
 * Calls `sweep`, which removes expired entries, every second as long as it returns true: there are entries left. The
 * returned function begins that again; call it when an entry is added.
 */
export function sweeper(clock: Clock, sweep: () => boolean): () => void {
  let pending = false
  const sweepLater = (): void => {
    if (pending) return
    pending = true
    clock.after(SWEEP_INTERVAL_MS, fired, true)
  }
  const fired = (): void => {
    pending = false
    if (sweep()) sweepLater()
  }
  return sweepLater
}
