import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/wait.ts'
import type { Outcome } from '../queues/awaited.ts'
import { crewMember } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import { figure, heading, table } from '../report.ts'
import { endChildren, type Stage } from '../stage.ts'
import { now, sum } from '../statistics.ts'

const NAMES: readonly QueueName[] = ['soloflight', 'BullMQ', 'bee-queue']
const QUICK: readonly QueueName[] = ['soloflight']

const JOBS = 10_000
const STANDS_STILL = 1_500
/** Whoever has no answer so long after the last job ran has none, ms. */
const PATIENCE = 4_000
/** Within this the jobs have run, ms. */
const RUN_WITHIN = 15_000

const SUBMITTERS = 100
const PROCESSES = 4
const OVER = 300
const WORK = 5

interface Shared extends Outcome {
  runs: number
}

/** Results that never come. */
export async function queueLost(stage: Stage): Promise<void> {
  heading('queue-lost: results that never come')
  const names = stage.quick ? QUICK : NAMES
  const still = new Map<QueueName, Shared>()
  for (const name of names) still.set(name, await standStill(name, stage))
  table(
    [`${JOBS} awaited jobs, the producer stands still for ${STANDS_STILL} ms`, 'runs', ...OUTCOME],
    [...still].map(([name, outcome]) => [name, outcome.runs, ...outcomeCells(outcome)]),
  )
  const own = still.get('soloflight')
  figure({
    what: `${JOBS} awaited jobs while the producer stands still, right results; never settled`,
    wanted: `${JOBS}; 0`,
    measured: `${own?.right}; ${own?.unsettled}`,
    reached: own?.right === JOBS && own.unsettled === 0,
    kind: 'count',
  })
  console.log()
  const same = new Map<string, Shared>()
  // Of a job that is there already bee-queue tells no id: its result cannot be awaited.
  for (const name of names.filter((name) => name !== 'bee-queue'))
    same.set(name, await submitSame(name, stage))
  if (names.includes('BullMQ')) {
    same.set('BullMQ, removeOnComplete: true', await submitSame('BullMQ', stage, 0))
  }
  table(
    [`one job, ${SUBMITTERS} times, ${PROCESSES} processes, ${OVER} ms`, 'runs', ...OUTCOME],
    [...same].map(([name, shared]) => [name, shared.runs, ...outcomeCells(shared)]),
  )
  const shared = same.get('soloflight')
  figure({
    what: `one job, submitted ${SUBMITTERS} times in ${PROCESSES} processes, runs; right results`,
    wanted: `1; ${SUBMITTERS}`,
    measured: `${shared?.runs}; ${shared?.right}`,
    reached: shared?.runs === 1 && shared.right === SUBMITTERS,
    kind: 'count',
  })
}

const OUTCOME = ['right', 'wrong', 'rejected', 'never settled'] as const

function outcomeCells({ right, wrong, rejected, unsettled }: Outcome): number[] {
  return [right, wrong, rejected, unsettled]
}

/** All jobs wait and are awaited; then a worker comes, and the producer stands still as soon as it has a result. */
async function standStill(name: QueueName, { server }: Stage): Promise<Shared> {
  const queue = `still.${name}`
  const terms = { queue, deduplicated: false }
  const producer = await crewMember(name, server, [{ ...terms, submits: true, works: false }])
  const crew = [producer]
  try {
    await producer.call('submit', queue, JOBS)
    await producer.call('allWait', queue, JOBS)
    const stood = producer.call('standStill', queue, STANDS_STILL)
    const worker = await crewMember(name, server, [{ ...terms, submits: false, works: true }])
    crew.push(worker)
    await stood
    const runs = async () => (await worker.call('usage')).runs
    await until(async () => (await runs()) >= JOBS, {
      what: 'the jobs to run',
      timeout: RUN_WITHIN,
      every: 50,
    }).catch(() => {})
    const outcome = await producer.call('settled', queue, PATIENCE)
    return { ...outcome, runs: await runs() }
  } finally {
    await endChildren(crew)
  }
}

/** One and the same job, submitted in several processes over a while. */
async function submitSame(name: QueueName, { server }: Stage, keeps?: number): Promise<Shared> {
  const queue = `same.${name}.${keeps}`
  const terms = { queue, deduplicated: true, ...(keeps !== undefined && { keeps }) }
  const [worker, ...producers] = await Promise.all([
    crewMember(name, server, [{ ...terms, submits: false, works: true }]),
    ...Array.from({ length: PROCESSES }, () =>
      crewMember(name, server, [{ ...terms, submits: true, works: false }]),
    ),
  ])
  try {
    await worker.call('sleepInJobs', WORK)
    // So that nobody is still connecting.
    await sleep(200)
    const at = now() + 50
    const every = (OVER * PROCESSES) / SUBMITTERS
    await Promise.all(
      producers.map((producer, index) =>
        producer.call('submitSame', queue, SUBMITTERS / PROCESSES, at + (index * every) / PROCESSES, every),
      ),
    )
    const outcomes = await Promise.all(producers.map((producer) => producer.call('settled', queue, 3_000)))
    const total = (of: (outcome: Outcome) => number) => sum(outcomes.map(of))
    return {
      runs: (await worker.call('usage')).runs,
      right: total(({ right }) => right),
      wrong: total(({ wrong }) => wrong),
      rejected: total(({ rejected }) => rejected),
      unsettled: total(({ unsettled }) => unsettled),
    }
  } finally {
    await endChildren([worker, ...producers])
  }
}
