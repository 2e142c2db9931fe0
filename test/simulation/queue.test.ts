import { QUEUE_MUTATIONS } from './queue/mutations.ts'
import { simulate } from './queue/run.ts'
import { testSimulation } from './suite.ts'

testSimulation({
  name: 'queue simulation',
  title: 'Q1 Q2 Q3 S1 S5 S6 L1 L3 L5 queue simulation - no seed breaks a guarantee',
  file: 'test/simulation/queue.test.ts',
  simulate,
  seeds: 40,
  countedSeeds: 30,
  least: () => ({ calls: 1000, begun: 600, outcomes: 600, values: 400, replaced: 30 }),
  mutations: QUEUE_MUTATIONS,
  harmless: ({ name, plan }) => (plan ? { name, plan } : { name }),
  seedsPerMutation: 300,
})
