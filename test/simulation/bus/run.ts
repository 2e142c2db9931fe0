import { type Simulate, simulatorOf } from '../run.ts'
import { checkPushes } from './calls.ts'
import { BusDriver } from './driver.ts'
import { BusFaults } from './faults.ts'
import { BusLivenessCheck } from './liveness.ts'
import type { BusMutation } from './mutations/mutation.ts'
import { type BusActor, BusWorld } from './world.ts'

type Counts = {
  calls: number
  pushed: number
  deliveries: number
  acks: number
  redelivered: number
  exclusive: number
  lost: number
  detached: number
  stoodStill: number
  topicMessages: number
  gaps: number
}

const simulateWorld: Simulate<Counts, BusMutation> = simulatorOf<BusWorld, BusActor, Counts, BusMutation>({
  createWorld: (seed, scheduler, traced, mutation) => new BusWorld(seed, scheduler, traced, mutation),

  createParts(world) {
    const driver = new BusDriver(world)
    const faults = new BusFaults(world, driver)
    const liveness = new BusLivenessCheck(world, driver)
    return { driver, faults, liveness, checkSafety: () => checkPushes(world) }
  },

  countsOf({ history: { calls, entries, counts } }) {
    return {
      calls: calls.length,
      pushed: entries.length,
      deliveries: entries.reduce((sum, { deliveries }) => sum + deliveries.length, 0),
      lost: entries.filter(({ removed }) => removed?.how === 'lost').length,
      ...counts,
    }
  },
})

/** Simulates queues and topics of a bus. */
export const simulate: Simulate<Counts, BusMutation> = async (seed, options = {}) => {
  const uninstall = options.mutation?.install?.()
  try {
    return await simulateWorld(seed, options)
  } finally {
    uninstall?.()
  }
}
