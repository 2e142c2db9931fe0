import { MUTATIONS } from './locker/mutations.ts'
import { simulate } from './locker/run.ts'
import { testSimulation } from './suite.ts'

testSimulation({
  name: 'simulation',
  title: 'S1 S2 S3 S4 S5 S6 L1 L2 L4 L5 simulation - no seed breaks a guarantee',
  file: 'test/simulation/locker.test.ts',
  simulate,
  seeds: 70,
  countedSeeds: 200,
  least: ({ works }) => ({
    ...{ calls: 1000, works: 300, grants: works * 0.9, acceptances: 200, invalidations: 200 },
    ...{ tags: 80, stale: 20, unkept: 30, passes: 20, unwanted: 5 },
  }),
  mutations: MUTATIONS,
  harmless: ({ name, plan }) => (plan ? { name, plan } : { name }),
  seedsPerMutation: 600,
})
