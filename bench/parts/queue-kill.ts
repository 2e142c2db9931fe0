import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/wait.ts'
import type { Outcome } from '../queues/awaited.ts'
import { crewMember, type QueueChild } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import type { Started } from '../queues/task.ts'
import { figure, heading, table } from '../report.ts'
import { endChildren, type Stage } from '../stage.ts'
import { now } from '../statistics.ts'

/** Jobs under way when the worker dies. */
const JOBS = 8

/** The worker is killed so long after all its jobs began, ms. */
const RUNS_FOR = 400

/** Above two leases a worker has this much to begin the job again, ms. */
const SLACK = 500

interface Scene {
  name: QueueName
  /** What its library calls by that name, or what comes nearest to it, ms. */
  lease: number
  /** Whether that is its default, which is then left alone. */
  byDefault: boolean
  /** Whoever has not begun again by then, ms, has not. */
  patience: number
}

const QUICK: readonly Scene[] = [{ name: 'soloflight', lease: 1_000, byDefault: false, patience: 5_000 }]
const SCENES: readonly Scene[] = [
  ...QUICK,
  { name: 'soloflight', lease: 10_000, byDefault: true, patience: 30_000 },
  { name: 'bee-queue', lease: 5_000, byDefault: true, patience: 30_000 },
  { name: 'BullMQ', lease: 30_000, byDefault: true, patience: 95_000 },
]

interface Kill {
  /** Jobs that the dead worker had. */
  jobs: number
  /** Milliseconds from its death until such a job began elsewhere. */
  delays: number[]
  outcome: Outcome
}

/** A worker is killed while it runs jobs and another stands by. All at the same time: nearly all of it is waiting. */
export async function queueKill(stage: Stage): Promise<void> {
  const scenes = stage.quick ? QUICK : SCENES
  heading('queue-kill: kill -9 of a worker, until its jobs begin again in another process')
  const kills = await Promise.all(scenes.map(async (scene) => ({ scene, kill: await play(scene, stage) })))
  table(
    ['', 'lease s', 'jobs killed', 'first again after s', 'last', 'right results', 'never settled'],
    kills.map(({ scene, kill: { jobs, delays, outcome } }) => [
      `${scene.name}${scene.byDefault ? ', defaults' : ''}`,
      scene.lease / 1_000,
      jobs,
      delays.length > 0 ? (Math.min(...delays) / 1_000).toFixed(1) : '-',
      delays.length === jobs ? (Math.max(...delays) / 1_000).toFixed(1) : `over ${scene.patience / 1_000}`,
      `${outcome.right} of ${JOBS}`,
      outcome.unsettled,
    ]),
  )
  for (const { scene, kill } of kills) if (scene.name === 'soloflight') judge(scene, kill)
}

function judge({ lease, byDefault, patience }: Scene, { jobs, delays, outcome }: Kill): void {
  const all = delays.length === jobs
  const last = all ? Math.max(...delays) : Number.POSITIVE_INFINITY
  const most = 2 * lease + SLACK
  figure({
    what: `kill -9 of a worker, until its jobs begin elsewhere, lease ${lease / 1_000} s${byDefault ? ' (default)' : ''}`,
    wanted: `at most ${most / 1_000} s, all results`,
    measured: `${all ? `${(last / 1_000).toFixed(1)} s` : `over ${patience / 1_000} s`}, ${outcome.right} of ${JOBS}`,
    reached: last <= most && outcome.right === JOBS,
    kind: 'count',
  })
}

async function play({ name, lease, byDefault, patience }: Scene, { server }: Stage): Promise<Kill> {
  const queue = `kill-${lease}.${name}`
  const terms = { queue, deduplicated: false, ...(!byDefault && { lease }) }
  const open = (works: boolean) => crewMember(name, server, [{ ...terms, submits: !works, works }])
  const [producer, ...workers] = await Promise.all([open(false), open(true), open(true)])
  try {
    await Promise.all(workers.map((worker) => worker.call('shutGate')))
    const started = new Map<QueueChild, Started[]>(workers.map((worker) => [worker, []]))
    for (const worker of workers) {
      worker.on('started', (data) => started.get(worker)?.push(data as Started))
    }
    await producer.call('submit', queue, JOBS)
    const startedBy = (worker: QueueChild) => started.get(worker) ?? []
    await until(() => workers.flatMap(startedBy).length === JOBS, { what: 'the jobs to begin' })
    await sleep(RUNS_FOR)
    const [victim, other] = workers.toSorted((a, b) => startedBy(b).length - startedBy(a).length)
    if (!victim || !other) throw new Error('Expected two workers')
    const killed = new Set(startedBy(victim).map(({ n }) => n))
    const killedAt = now()
    await victim.kill()
    const again = () => startedBy(other).filter(({ n, at }) => killed.has(n) && at > killedAt)
    await until(() => again().length >= killed.size, { what: 'another worker', timeout: patience }).catch(
      () => {},
    )
    await other.call('openGate')
    const outcome = await producer.call('settled', queue, 5_000)
    return { jobs: killed.size, delays: again().map(({ at }) => at - killedAt), outcome }
  } finally {
    await endChildren([producer, ...workers])
  }
}
