import { type Simulate, simulatorOf } from '../run.ts'
import { ServicesDriver } from './driver.ts'
import { ServicesFaults } from './faults.ts'
import { ServicesLivenessCheck } from './liveness.ts'
import type { ServicesMutation } from './mutation.ts'
import { ServicesSafetyCheck } from './safety.ts'
import { type ServicesActor, ServicesWorld } from './world.ts'

type Counts = {
  calls: number
  runs: number
  values: number
  tries: number
  streams: number
  maybe: number
}

/** Simulates services. */
export const simulate: Simulate<Counts, ServicesMutation> = simulatorOf<
  ServicesWorld,
  ServicesActor,
  Counts,
  ServicesMutation
>({
  createWorld: (seed, scheduler, traced, mutation) => new ServicesWorld(seed, scheduler, traced, mutation),

  createParts(world, slowest) {
    const driver = new ServicesDriver(world)
    const faults = new ServicesFaults(world, driver)
    const liveness = new ServicesLivenessCheck(world, driver)
    return { driver, faults, liveness, checkSafety: () => new ServicesSafetyCheck(world, slowest).check() }
  },

  countsOf({ history: { calls, runs } }) {
    const ended = calls.flatMap(({ ended }) => (ended ? [ended.ending] : []))
    return {
      calls: calls.length,
      runs: runs.length,
      values: ended.filter(({ kind }) => kind === 'value').length,
      tries: runs.filter(({ attempt }) => attempt > 1).length,
      streams: calls.filter(({ mode, ended }) => mode === 'stream' && ended?.ending.kind === 'value').length,
      maybe: ended.filter((ending) => ending.kind === 'error' && ending.ran === 'maybe').length,
    }
  },
})
