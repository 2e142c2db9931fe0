import { type Simulate, simulatorOf } from '../run.ts'
import { Driver } from './driver.ts'
import { LockerFaults } from './faults.ts'
import { LivenessCheck } from './liveness.ts'
import type { Mutation } from './mutation.ts'
import { SafetyCheck } from './safety.ts'
import { type Actor, World } from './world.ts'

type Counts = {
  calls: number
  works: number
  grants: number
  acceptances: number
  invalidations: number
  /** Of tags. */
  tags: number
  /** Stale results served. */
  stale: number
  /** Unstored results, and works that ran in a bypass. */
  unkept: number
  passes: number
  /** Leases released because no caller waited any more. */
  unwanted: number
}

/** Simulates lockers. */
export const simulate: Simulate<Counts, Mutation> = simulatorOf<World, Actor, Counts, Mutation>({
  createWorld: (seed, scheduler, traced, mutation) => new World(seed, scheduler, traced, mutation),

  createParts(world, slowest) {
    const driver = new Driver(world)
    const faults = new LockerFaults(world, driver)
    const liveness = new LivenessCheck(world, driver, faults)
    return { driver, faults, liveness, checkSafety: () => new SafetyCheck(world, slowest).check() }
  },

  countsOf({ history, recorder, actors }) {
    const { calls, works, grants, acceptances, invalidations } = history
    const stats = actors.map(({ locker }) => locker.stats())
    return {
      calls: calls.length,
      works: works.length,
      grants: grants.length,
      acceptances: acceptances.length,
      invalidations: invalidations.length,
      tags: invalidations.filter(({ what }) => what === 'tag').length,
      stale: stats.reduce((sum, { stale }) => sum + stale, 0),
      unkept: acceptances.filter(({ kept }) => !kept).length,
      passes: stats.reduce((sum, { bypasses: passes }) => sum + passes, 0),
      unwanted: recorder.unwanted,
    }
  },
})
