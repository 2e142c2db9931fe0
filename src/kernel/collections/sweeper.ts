import type { Clock } from '../time/clock.ts'

const SWEEP_INTERVAL_MS = 1000

/**
 * Calls `sweep`, which removes expired entries, every second while it returns true: entries are left. The returned function
 * resumes that; call it when an entry is added.
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
