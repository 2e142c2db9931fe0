import type { JobStatus, RedisQueue } from '../../queue/index.ts'
import { inSeconds } from '../duration.ts'
import type { Answers } from './census-items.ts'
import type { ProcessView } from './overview.ts'
import { situationOf } from './queue-views.ts'
import { RECENT } from './recent-answers.ts'
import type { OverviewSources } from './sources.ts'
import { type JobHolder, whyJob } from './why.ts'
import { workerViews } from './worker-views.ts'

/** Why a job waits, and who runs it. Times in seconds. */
export interface JobView {
  readonly why: string
  /** Of a delayed job: when it falls due, seconds since 1970. */
  readonly due?: number
  /** Of a job that runs, if its process has answered. */
  readonly runner?: ProcessView & {
    /** The client that has taken it, by the name that it gave itself. `process` is its gateway. */
    readonly worker?: string
    readonly age: number
    /** Of the lease of a client. */
    readonly left?: number
  }
}

/** What a job waits for. Asks the other processes only if it waits for a worker, or runs. */
export async function jobView(
  { answers, prefix }: OverviewSources,
  queue: RedisQueue,
  { id, state, command, dueIn = 0, retries }: JobStatus,
): Promise<JobView> {
  const now = Date.now()
  if (state === 'delayed') {
    const due = inSeconds(now + dueIn)
    return { why: whyJob({ state, until: now + dueIn, now, retries }), due }
  }
  if (state !== 'waiting' && state !== 'active') return { why: whyJob({ state }) }
  const [answered, paused] = await Promise.all([answers.notOlderThan(RECENT), queue.paused()])
  const { complete } = answered
  if (state === 'waiting') {
    const workers = workerViews(answered, prefix, now)
    const queueState = { name: queue.name, load: { paused }, workers, complete, at: now }
    return { why: whyJob({ state, command: situationOf(queueState, command) }) }
  }
  const found = findHolder(answered, { prefix, queue: queue.name, id })
  return { why: whyJob({ state, holder: found?.holder ?? { kind: 'unknown' }, complete }), ...found?.view }
}

/** The process, or the client of a gateway, that has a job. */
function findHolder(
  { workers, gateway }: Answers,
  { prefix, queue, id }: { prefix: string; queue: string; id: string },
): { holder: JobHolder; view: Pick<JobView, 'runner'> } | undefined {
  const isIt = (item: { prefix: string; queue: string; id: string }) =>
    item.prefix === prefix && item.queue === queue && item.id === id
  for (const { item, process, host, pid } of workers) {
    if (item.kind !== 'running' || !isIt(item)) continue
    const owner = { process, host, pid }
    const holder = { kind: 'process', process: owner, age: item.age } as const
    return { holder, view: { runner: { ...owner, age: inSeconds(item.age) } } }
  }
  let latest: Answers['gateway'][number] | undefined
  for (const entry of gateway)
    if (entry.item.kind === 'job' && isIt(entry.item) && isLater(entry, latest)) latest = entry
  if (latest?.item.kind !== 'job') return undefined
  const { item, process, host, pid } = latest
  const worker = item.worker === '' ? undefined : item.worker
  const holder = { kind: 'client', worker, age: item.age, left: item.left } as const
  const named = worker === undefined ? {} : { worker }
  return {
    holder,
    view: {
      runner: { process, host, pid, ...named, age: inSeconds(item.age), left: inSeconds(item.left) },
    },
  }
}

/** Of what several gateways know of a job: its last attempt, and the longest lease of that. */
function isLater(
  { item }: Answers['gateway'][number],
  latest: Answers['gateway'][number] | undefined,
): boolean {
  if (item.kind !== 'job' || latest?.item.kind !== 'job') return true
  return (
    item.fence - latest.item.fence > 0 || (item.fence === latest.item.fence && item.left > latest.item.left)
  )
}
