import type { Ending, Moment } from './history.ts'
import type { SimProcess } from './process.ts'
import type { SimActor, SimWorld } from './world.ts'

/** Tolerance of deadlines on a quiet network, ms: some 50 round trips. */
export const EPSILON = 100

interface TimedCall {
  process: number
  begun: Moment
  deadline: number
  ended: (Moment & { ending: Ending }) | undefined
}

/** L1: every call of a live process is settled by its deadline, and a process is closed by that of its `close`. */
export function checkDeadlines<Call extends TimedCall>(
  world: SimWorld<SimActor>,
  calls: readonly Call[],
  nameOf: (call: Call) => string,
  isExcused: (call: Call, process: SimProcess) => boolean = () => false,
): void {
  const { history, actors, scheduler } = world
  for (const call of calls) {
    const process = actors[call.process]?.process
    if (!process) continue
    const due = process.actsAt(call.deadline)
    const { ended } = call
    const isLate =
      due === Number.POSITIVE_INFINITY
        ? !ended && !process.dead
        : (ended?.at ?? scheduler.now) > due + EPSILON
    if (!isLate || process.diedAt <= due + EPSILON || isExcused(call, process)) continue
    const how = ended ? `${(ended.at - due).toFixed(1)} ms late` : 'not at all'
    history.violate('L1', `${nameOf(call)} was settled ${how}`)
  }
  for (const { process: id, ended, deadline } of history.closings) {
    const process = actors[id]?.process
    if (!process) continue
    // Everything it waited for has ended by now.
    if (deadline === Number.POSITIVE_INFINITY && !ended && !process.dead)
      history.violate('L1', `p${id} is never closed`)
    if ((ended?.at ?? scheduler.now) <= process.actsAt(deadline) + EPSILON) continue
    if (process.diedAt < process.actsAt(deadline) + EPSILON) continue
    // A paused process gets the time of the pause in addition.
    if (ended && process.pausedWithin(0, ended.at)) continue
    const late = ended ? `closed ${(ended.at - deadline).toFixed(1)} ms late` : 'never closed'
    history.violate('L1', `p${id} is ${late}`)
  }
}
