import type { Violation } from '../locker/history.ts'
import { underControl } from '../locker/random.ts'
import { Scheduler } from '../locker/scheduler.ts'
import { QueueDriver } from './driver.ts'
import { QueueFaults } from './faults.ts'
import { QueueLivenessCheck } from './liveness.ts'
import type { QueueMutation } from './mutation.ts'
import { QueueSafetyCheck } from './safety.ts'
import { QueueWorld } from './world.ts'

/** Result of a run. */
export interface QueueRunResult {
  seed: number
  violations: Violation[]
  /** Number of scheduled events that ran. */
  steps: number
  /** Numbers of what was checked. */
  counts: { calls: number; begun: number; outcomes: number; values: number; replaced: number }
  trace: string[]
}

/** Simulates one world, fully determined by the seed, and checks its history. */
export async function simulateQueue(
  seed: number,
  { traced = false, mutation }: { traced?: boolean; mutation?: QueueMutation } = {},
): Promise<QueueRunResult> {
  const scheduler = new Scheduler()
  const setTimer = (ms: number, run: () => void) => {
    const entry = scheduler.after(ms, run)
    return () => {
      entry.run = undefined
    }
  }
  return underControl(seed, setTimer, async () => {
    const world = new QueueWorld(seed, scheduler, traced, mutation)
    const onRejection = (reason: unknown) =>
      world.history.violate('L1', `nobody handles ${reason instanceof Error ? reason.stack : reason}`)
    process.on('unhandledRejection', onRejection)
    try {
      await play(world)
    } finally {
      process.off('unhandledRejection', onRejection)
    }
    const { jobCalls, attempts, outcomes, violations, trace } = world.history
    const counts = {
      calls: jobCalls.length,
      begun: attempts.filter(({ begun }) => begun).length,
      outcomes: outcomes.length,
      values: outcomes.filter(({ kind }) => kind === 'value').length,
      replaced: attempts.filter(({ over }) => over?.how === 'replaced').length,
    }
    return { seed, violations, steps: scheduler.steps, counts, trace }
  })
}

async function play(world: QueueWorld): Promise<void> {
  const { plan, scheduler, history } = world
  history.say(() => JSON.stringify(plan))
  const lossy = plan.lost > 0 || !plan.ordered
  const slowest = Math.max(plan.spikes > 0 ? plan.spike : 0, plan.latency * 5) + 1
  const driver = new QueueDriver(world)
  const faults = new QueueFaults(world, driver)
  for (let count = 0; count < plan.processes; count++) world.spawn()
  scheduleCalls(world, driver)
  faults.schedule()
  await scheduler.runUntil(plan.duration)
  history.say(() => '--- no more faults')
  faults.stop()
  // Requests and messages that are under way still arrive.
  await scheduler.runUntil(Math.max(scheduler.now, world.server.frozenUntil) + 2 * slowest + 5)
  await new QueueLivenessCheck(world, driver, lossy).check()
  new QueueSafetyCheck(world).check()
}

/** Schedules calls: single ones, and bursts. */
function scheduleCalls(world: QueueWorld, driver: QueueDriver): void {
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
