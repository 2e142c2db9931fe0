import { Driver } from './driver.ts'
import { Faults } from './faults.ts'
import type { Violation } from './history.ts'
import { LivenessCheck } from './liveness.ts'
import type { Mutation } from './mutation.ts'
import { underControl } from './random.ts'
import { SafetyCheck } from './safety.ts'
import { Scheduler } from './scheduler.ts'
import { World } from './world.ts'

interface Counts {
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

/** The result of a run. */
export interface RunResult {
  seed: number
  violations: Violation[]
  /** Number of events. */
  steps: number
  /** Numbers of calls, works and grants that were checked. */
  counts: Counts
  trace: string[]
}

/** Simulates one world, determined by the seed, and checks its history. */
export async function simulate(
  seed: number,
  { traced = false, mutation }: { traced?: boolean; mutation?: Mutation } = {},
): Promise<RunResult> {
  const scheduler = new Scheduler()
  const setTimer = (ms: number, run: () => void) => {
    const entry = scheduler.after(ms, run)
    return () => {
      entry.run = undefined
    }
  }
  return underControl(seed, setTimer, async () => {
    const world = new World(seed, scheduler, traced, mutation)
    const onRejection = (reason: unknown) =>
      world.history.violate('L1', `nobody handles ${reason instanceof Error ? reason.stack : reason}`)
    process.on('unhandledRejection', onRejection)
    try {
      await play(world)
    } finally {
      process.off('unhandledRejection', onRejection)
    }
    const { calls, works, grants, acceptances, invalidations, violations, trace } = world.history
    const stats = world.actors.map(({ locker }) => locker.stats())
    const counts: Counts = {
      calls: calls.length,
      works: works.length,
      grants: grants.length,
      acceptances: acceptances.length,
      invalidations: invalidations.length,
      tags: invalidations.filter(({ what }) => what === 'tag').length,
      stale: stats.reduce((sum, { stale }) => sum + stale, 0),
      unkept: acceptances.filter(({ kept }) => !kept).length,
      passes: stats.reduce((sum, { bypasses: passes }) => sum + passes, 0),
      unwanted: world.recorder.unwanted,
    }
    return { seed, violations, steps: scheduler.steps, counts, trace }
  })
}

async function play(world: World): Promise<void> {
  const { plan, scheduler, history } = world
  history.say(() => JSON.stringify(plan))
  const slowest = Math.max(plan.spikes > 0 ? plan.spike : 0, plan.latency * 5) + 1
  const driver = new Driver(world)
  const faults = new Faults(world, driver)
  for (let count = 0; count < plan.processes; count++) world.spawn()
  scheduleCalls(world, driver)
  faults.schedule()
  const liveness = new LivenessCheck(world, driver, faults)
  liveness.watch()
  await scheduler.runUntil(plan.duration)
  history.say(() => '--- no more faults')
  faults.stop()
  // Messages that are under way still arrive.
  await scheduler.runUntil(Math.max(scheduler.now, world.server.frozenUntil) + 2 * slowest + 5)
  await liveness.check()
  new SafetyCheck(world, slowest).check()
}

/** Calls come alone and in bursts. */
function scheduleCalls(world: World, driver: Driver): void {
  const { plan, random, scheduler } = world
  const bursts = [1, 2, 3].map(() => random.between(0, plan.duration))
  for (let count = 0; count < plan.calls; count++) {
    const near = random.chance(plan.mix.burst)
    const at = near
      ? random.pick(bursts) + random.exponential(plan.latency * 3)
      : random.between(0, plan.duration)
    scheduler.at(Math.min(at, plan.duration), () => {
      const awake = world.awake()
      if (awake.length > 0) driver.act(random.pick(awake))
    })
  }
}
