import type { ServiceCall } from './history.ts'
import type { ServicesWorld } from './world.ts'

/** Tolerance of time bounds, ms. */
export const EPSILON = 100

/** V1: a call of a live process is settled by its deadline. `settledAt`: when it was, or now. */
export function checkDeadline(world: ServicesWorld, call: ServiceCall, settledAt: number): void {
  const process = world.actors[call.process]?.process
  if (!process) return
  // A paused process gets the time of the pause in addition: its timers may start one after the other.
  const paused = process.pauses
    .filter(({ from, until }) => from <= settledAt && until >= call.begun.at)
    .reduce((sum, { from, until }) => sum + Math.min(until, settledAt) - from, 0)
  const due = call.deadline + paused + EPSILON
  if (settledAt <= due || process.diedAt <= due) return
  world.history.violate(
    'V1',
    `#${call.no} of p${call.process} was settled ${(settledAt - due).toFixed(1)} ms late`,
  )
}
