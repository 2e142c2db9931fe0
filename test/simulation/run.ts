import type { SimFaults } from './faults.ts'
import type { Violation } from './history.ts'
import { underControl } from './random.ts'
import { Scheduler } from './scheduler.ts'
import type { SimActor, SimWorld } from './world.ts'

/** The result of a run. */
export interface RunResult<Counts> {
  seed: number
  violations: Violation[]
  /** Number of events. */
  steps: number
  /** Numbers of what was checked. */
  counts: Counts
  trace: string[]
}

export interface RunOptions<Mutation> {
  traced?: boolean
  mutation?: Mutation
}

/** Simulates one world, determined by the seed, and checks its history. */
export type Simulate<Counts, Mutation> = (
  seed: number,
  options?: RunOptions<Mutation>,
) => Promise<RunResult<Counts>>

/** What acts in a world, and what checks it. */
interface Parts<Actor extends SimActor> {
  driver: { act(actor: Actor): void }
  faults: SimFaults<Actor, SimWorld<Actor>>
  /** `watch` is called before the run, `check` after the faults have stopped. */
  liveness: { watch?(): void; check(): Promise<void> }
  checkSafety(): void
}

/** What is simulated. */
export interface Simulated<World extends SimWorld<Actor>, Actor extends SimActor, Counts, Mutation> {
  createWorld(seed: number, scheduler: Scheduler, traced: boolean, mutation: Mutation | undefined): World
  /** `slowest`: the longest latency, ms. */
  createParts(world: World, slowest: number): Parts<Actor>
  countsOf(world: World): Counts
}

export function simulatorOf<World extends SimWorld<Actor>, Actor extends SimActor, Counts, Mutation>({
  createWorld,
  createParts,
  countsOf,
}: Simulated<World, Actor, Counts, Mutation>): Simulate<Counts, Mutation> {
  return (seed, { traced = false, mutation } = {}) => {
    const scheduler = new Scheduler()
    const setTimer = (ms: number, run: () => void) => {
      const entry = scheduler.after(ms, run)
      return () => {
        entry.run = undefined
      }
    }
    return underControl(seed, setTimer, async () => {
      const world = createWorld(seed, scheduler, traced, mutation)
      const { history, plan } = world
      const onRejection = (reason: unknown) =>
        history.violate('L1', `nobody handles ${reason instanceof Error ? reason.stack : reason}`)
      process.on('unhandledRejection', onRejection)
      try {
        const slowest = Math.max(plan.spikes > 0 ? plan.spike : 0, plan.latency * 5) + 1
        await play(world, createParts(world, slowest), slowest)
      } finally {
        process.off('unhandledRejection', onRejection)
      }
      const { violations, trace } = history
      return { seed, violations, steps: scheduler.steps, counts: countsOf(world), trace }
    })
  }
}

async function play<Actor extends SimActor>(
  world: SimWorld<Actor>,
  { driver, faults, liveness, checkSafety }: Parts<Actor>,
  slowest: number,
): Promise<void> {
  const { plan, scheduler, history } = world
  history.say(() => JSON.stringify(plan))
  for (let count = 0; count < plan.processes; count++) world.spawn()
  scheduleCalls(world, (actor) => driver.act(actor))
  faults.schedule()
  liveness.watch?.()
  await scheduler.runUntil(plan.duration)
  history.say(() => '--- no more faults')
  faults.stop()
  // Requests and messages that are under way still arrive.
  await scheduler.runUntil(Math.max(scheduler.now, world.server.frozenUntil) + 2 * slowest + 5)
  await liveness.check()
  checkSafety()
}

/** Calls come alone and in bursts. */
function scheduleCalls<Actor extends SimActor>(world: SimWorld<Actor>, act: (actor: Actor) => void): void {
  const { plan, random, scheduler } = world
  const bursts = [1, 2, 3].map(() => random.between(0, plan.duration))
  for (let count = 0; count < plan.calls; count++) {
    const near = random.chance(plan.mix.burst)
    const at = near
      ? random.pick(bursts) + random.exponential(plan.latency * 3)
      : random.between(0, plan.duration)
    scheduler.at(Math.min(at, plan.duration), () => {
      const awake = world.awake()
      if (awake.length > 0) act(random.pick(awake))
    })
  }
}
