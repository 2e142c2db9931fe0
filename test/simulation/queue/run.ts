import { type Simulate, simulatorOf } from '../run.ts'
import { QueueDriver } from './driver.ts'
import { QueueFaults } from './faults.ts'
import { QueueLivenessCheck } from './liveness.ts'
import type { QueueMutation } from './mutation.ts'
import { QueueSafetyCheck } from './safety.ts'
import { type QueueActor, QueueWorld } from './world.ts'

type Counts = {
  calls: number
  begun: number
  outcomes: number
  values: number
  replaced: number
  taken: number
  none: number
  givenBack: number
  exclusive: number
  posts: number
}

/** Simulates queues. */
export const simulate: Simulate<Counts, QueueMutation> = simulatorOf<
  QueueWorld,
  QueueActor,
  Counts,
  QueueMutation
>({
  createWorld: (seed, scheduler, traced, mutation) => new QueueWorld(seed, scheduler, traced, mutation),

  createParts(world) {
    const driver = new QueueDriver(world)
    const faults = new QueueFaults(world, driver)
    const lossy = world.plan.lost > 0 || !world.plan.ordered
    const liveness = new QueueLivenessCheck(world, driver, lossy)
    return { driver, faults, liveness, checkSafety: () => new QueueSafetyCheck(world).check() }
  },

  countsOf({ history }) {
    const { jobCalls, takes, attempts, outcomes, posts } = history
    const values = takes.map(({ ended }) =>
      ended?.ending.kind === 'value' ? ended.ending.identity : undefined,
    )
    return {
      calls: jobCalls.length,
      begun: attempts.filter(({ begun }) => begun).length,
      outcomes: outcomes.length,
      values: outcomes.filter(({ kind }) => kind === 'value').length,
      replaced: attempts.filter(({ over }) => over?.how === 'replaced').length,
      taken: values.filter(Boolean).length,
      none: values.filter((value) => value === '').length,
      givenBack: attempts.filter(({ isHeld, over }) => isHeld && over?.how === 'requeue').length,
      exclusive: jobCalls.filter(({ isExclusive, ended }) => isExclusive && ended?.ending.kind === 'value')
        .length,
      posts: posts.length,
    }
  },
})
