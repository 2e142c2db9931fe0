import { SERVICES_MUTATIONS } from './services/mutations.ts'
import { simulate } from './services/run.ts'
import { testSimulation } from './suite.ts'

testSimulation({
  name: 'services simulation',
  title: 'V1 V2 V3 V4 services simulation - no seed breaks a guarantee',
  file: 'test/simulation/services.test.ts',
  simulate,
  seeds: 60,
  countedSeeds: 60,
  least: () => ({ calls: 1000, runs: 1000, values: 600, tries: 30, streams: 50, maybe: 30 }),
  mutations: SERVICES_MUTATIONS,
  harmless: ({ name, plan }) => (plan ? { name, plan } : { name }),
  seedsPerMutation: 300,
})
