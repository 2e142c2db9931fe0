import { BUS_MUTATIONS } from './bus/mutations/index.ts'
import { simulate } from './bus/run.ts'
import { testSimulation } from './suite.ts'

testSimulation({
  name: 'bus simulation',
  title: 'B1 B2 B3 B4 B5 bus simulation - no seed breaks a guarantee',
  file: 'test/simulation/bus.test.ts',
  simulate,
  seeds: 40,
  countedSeeds: 60,
  least: () => ({
    ...{ calls: 3000, pushed: 1000, deliveries: 1000, acks: 300, redelivered: 40, exclusive: 100 },
    ...{ lost: 1, detached: 20, stoodStill: 5, topicMessages: 500, gaps: 1 },
  }),
  mutations: BUS_MUTATIONS,
  harmless: ({ name, plan }) => (plan ? { name, plan } : { name }),
  seedsPerMutation: 200,
})
