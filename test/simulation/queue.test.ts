import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Link } from './link.ts'
import { SimProcess } from './process.ts'
import { QUEUE_MUTATIONS } from './queue/mutations.ts'
import { queuePlanOf } from './queue/plan.ts'
import { simulate } from './queue/run.ts'
import { QueueServer } from './queue/server.ts'
import { TAKER_MUTATIONS } from './queue/taker-mutations.ts'
import { Random } from './random.ts'
import { Scheduler } from './scheduler.ts'
import { testSimulation } from './suite.ts'

testSimulation({
  name: 'queue simulation',
  title: 'Q1 Q2 Q3 S1 S5 S6 L1 L3 L5 queue simulation - no seed breaks a guarantee',
  file: 'test/simulation/queue.test.ts',
  simulate,
  seeds: 40,
  countedSeeds: 50,
  least: () => ({
    ...{ calls: 1000, begun: 600, outcomes: 600, values: 400, replaced: 30 },
    ...{ taken: 50, none: 50, givenBack: 10, exclusive: 10, posts: 30 },
  }),
  mutations: [...QUEUE_MUTATIONS, ...TAKER_MUTATIONS],
  harmless: ({ name, plan }) => (plan ? { name, plan } : { name }),
  seedsPerMutation: 300,
})

test('queue simulation - a connection carries its requests in order, also if the server stays frozen for longer', async () => {
  const scheduler = new Scheduler()
  const server = new QueueServer(scheduler)
  const plan = { ...queuePlanOf(new Random(1)), ordered: true, refused: 0, spikes: 0, latency: 1 }
  const link = new Link(
    new SimProcess(0, scheduler),
    { scheduler, server, random: new Random(1), plan },
    () => {},
  )
  const run: number[] = []
  const send = (number: number) => void link.call('r', async () => run.push(number), 1000)
  server.freeze(50)
  send(1)
  scheduler.at(40, () => server.freeze(50))
  scheduler.at(41, () => send(2))
  scheduler.at(90, () => send(3))
  await scheduler.runUntil(200)
  assert.deepEqual(run, [1, 2, 3])
})
