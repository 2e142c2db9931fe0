import { UnavailableError } from '../../errors.ts'
import { DEFAULT_COMMAND } from '../../kernel/names.ts'
import type { Clock, Timer } from '../../kernel/time.ts'
import type { RedisQueue, TakenJob } from '../../queue/index.ts'
import { WorkingClient } from '../clients/working-client.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import type { Answer } from '../http/answer.ts'
import { type HandOver, handOver } from '../http/hand-over.ts'
import { objectText } from '../http/json.ts'
import { leaseHeader, leaseParameter } from '../http/lease.ts'
import { queueName } from '../http/names.ts'
import { command, count, type ParameterValues } from '../http/parameters.ts'
import { waitOf, waitParameter, whileWanted } from '../http/waiting.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

/** Lease of a job that is taken for good, ms. It is renewed until its answer was sent. */
const HAND_OVER_LEASE = 30_000
/** If a client has not read its answer by then, ms, the lease of its job is not renewed any more. */
const HAND_OVER_WITHIN = 10 * 60_000
/** Pause before a job is ended again, ms, if the store has not answered. */
const RETRY_AFTER = 500

const DEFAULT_BATCH = 10
const MAX_BATCH = 1_000
/** Jobs that a batch takes at once. */
const BATCH_STEP = 10
/** A batch takes no more jobs when it has so many characters. */
const MAX_BATCH_LENGTH = 8 * 1024 * 1024

const TAKING = {
  command,
  lease: leaseParameter(
    'Takes the job under a lease of this duration. Without it the job is taken for good.',
  ),
  wait: waitParameter('How long to wait for a job.'),
}

const BATCH = { ...TAKING, batch_size: count('How many jobs at most.', 1, MAX_BATCH) }

const EMPTY = 'There is no job: `no job`, or `queue is closed`.'

/** Jobs are taken: one, or several; for good, or with `?lease=` until that ends. */
export const TAKE_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/q/:queue',
    scope: 'work',
    effect: 'changes',
    summary: 'Takes a job.',
    query: TAKING,
    headers: { Prefer: '`wait=30`: as the parameter `wait`, in seconds.' },
    answers: {
      200: 'The job as it was posted. `X-Job-Id`, `X-Job-Attempt` of `X-Job-Attempts`, and `X-Lease` for its lease.',
      404: EMPTY,
    },
    handle: takeJob,
  }),
  route({
    method: 'GET',
    path: '/qb/:queue',
    scope: 'work',
    effect: 'changes',
    summary: 'Takes several jobs.',
    query: BATCH,
    headers: { Prefer: '`wait=30`: as the parameter `wait`, in seconds.' },
    answers: { 200: 'An array of the jobs; with `lease`, of `{ id, lease, job }`.', 404: EMPTY },
    handle: takeJobs,
  }),
  ...(['PUT', 'DELETE'] as const).map((method) =>
    route({
      method,
      path: '/qb/:queue',
      scope: 'work',
      effect: 'changes',
      handle() {
        throw new Problem(400, 'method is not supported for a batch')
      },
    }),
  ),
]

function takeJob(c: RouteContext, deps: GatewayDeps, query: ParameterValues<typeof TAKING>): Promise<Answer> {
  const name = queueName(c)
  const { lease } = query
  const take = takeOf(c, deps, query)
  const client = WorkingClient.of(c, deps, name)
  return useFor(deps, name, take, async (queue) => {
    const job = await client.waits(take.command, take.wait, () => takeFrom(queue, c, deps, take))
    if (!job) throw await emptyProblem(queue, take.command)
    const headers: Record<string, string> = {
      'content-type': 'application/json',
      'x-job-id': job.id,
      'x-job-attempt': String(job.attempt),
      'x-job-attempts': String(job.attempts),
    }
    if (lease !== undefined) headers['x-lease'] = leaseHeader(job.token, lease)
    client.taken([job], lease)
    const handedOver = await handOver(c, job.payloadText || 'null', headers)
    return settleLater(deps, name, client, handedOver, [job], lease === undefined)
  })
}

function takeJobs(c: RouteContext, deps: GatewayDeps, query: ParameterValues<typeof BATCH>): Promise<Answer> {
  const name = queueName(c)
  const { lease, batch_size: size = DEFAULT_BATCH } = query
  const take = takeOf(c, deps, query)
  const client = WorkingClient.of(c, deps, name)
  return useFor(deps, name, take, async (queue) => {
    const jobs = await client.waits(take.command, take.wait, () => takeBatch(queue, c, deps, take, size))
    if (jobs.length === 0) throw await emptyProblem(queue, take.command)
    const texts = jobs.map(({ id, token, payloadText }) => {
      const job = payloadText || 'null'
      if (lease === undefined) return job
      return objectText({ id: JSON.stringify(id), lease: JSON.stringify(leaseHeader(token, lease)), job })
    })
    client.taken(jobs, lease)
    const handedOver = await handOver(c, `[${texts.join(',')}]`, { 'content-type': 'application/json' })
    return settleLater(deps, name, client, handedOver, jobs, lease === undefined)
  })
}

interface Take {
  readonly command: string
  /** ms */
  readonly lease: number
  /** ms */
  readonly wait: number
}

function takeOf(c: RouteContext, deps: GatewayDeps, query: ParameterValues<typeof TAKING>): Take {
  const { command = DEFAULT_COMMAND, lease = HAND_OVER_LEASE } = query
  return { command, lease, wait: waitOf(c, query, deps) }
}

/** Calls `run` with a queue, as a request that waits or as one that does not. */
function useFor<T>(
  { queues }: GatewayDeps,
  name: string,
  { wait }: Take,
  run: (queue: RedisQueue) => Promise<T>,
): Promise<T> {
  return wait > 0 ? queues.wait(name, run) : queues.use(name, run)
}

/** Undefined if there is no job within the wait, or nobody wants it any more. */
async function takeFrom(
  queue: RedisQueue,
  c: RouteContext,
  { lifecycle }: GatewayDeps,
  { command, lease, wait }: Take,
): Promise<TakenJob | undefined> {
  // Nothing to abort: a job that nobody wants any more goes back when it is handed over.
  if (wait === 0) return lifecycle.ending.aborted ? undefined : await queue.take(command, { lease, wait })
  return await whileWanted(c, lifecycle, async (signal) => {
    if (signal.aborted) return undefined
    try {
      return await queue.take(command, { lease, wait, signal })
    } catch (error) {
      if (signal.aborted) return undefined
      throw error
    }
  })
}

/** Waits for the first job, and takes those that are ready then. */
async function takeBatch(
  queue: RedisQueue,
  c: RouteContext,
  deps: GatewayDeps,
  take: Take,
  size: number,
): Promise<TakenJob[]> {
  const first = await takeFrom(queue, c, deps, take)
  const jobs = first ? [first] : []
  let length = first?.payloadText?.length ?? 0
  for (let isLast = !first; !isLast && jobs.length < size && length < MAX_BATCH_LENGTH; ) {
    const count = Math.min(size - jobs.length, BATCH_STEP)
    const more = await takeReady(queue, take, count)
    isLast = more.length < count
    for (const job of more) length += job.payloadText?.length ?? 0
    jobs.push(...more)
  }
  return jobs
}

/** Takes up to `count` jobs that are ready. An error ends the batch: those that were taken before are not lost by it. */
async function takeReady(queue: RedisQueue, { command, lease }: Take, count: number): Promise<TakenJob[]> {
  const taken = await Promise.allSettled(
    Array.from({ length: count }, () => queue.take(command, { lease, wait: 0 })),
  )
  return taken.flatMap((result) => (result.status === 'fulfilled' && result.value ? [result.value] : []))
}

async function emptyProblem(queue: RedisQueue, command: string): Promise<Problem> {
  const paused = await queue.paused()
  return new Problem(404, paused.includes('') || paused.includes(command) ? 'queue is closed' : 'no job')
}

/**
 * Ends the jobs that were taken for good when their answer was sent, and gives all of them back, uncounted, if the client was
 * gone before. If the store does not answer for 30 s, however long their lease is, nobody ends them: their leases end.
 */
function settleLater(
  { lifecycle, queues, clock }: GatewayDeps,
  name: string,
  client: WorkingClient,
  { answer, sent }: HandOver,
  jobs: readonly TakenJob[],
  forGood: boolean,
): Answer {
  const settle = async () => {
    const stopRenewing = forGood ? renewAll(jobs, clock) : () => {}
    const isSent = await sent.finally(stopRenewing)
    if (!isSent) client.missed(jobs)
    if (isSent && !forGood) return
    const until = clock.now() + HAND_OVER_LEASE
    await Promise.all(jobs.map((job) => settleJob(job, isSent, until, clock)))
  }
  // Once the gateway is closed, their leases end.
  lifecycle.track(() => queues.use(name, settle)).catch(() => {})
  return answer
}

/** Renews the leases of jobs whose answer is being read. The returned function ends that. */
function renewAll(jobs: readonly TakenJob[], clock: Clock): () => void {
  const until = clock.now() + HAND_OVER_WITHIN
  let timer: Timer
  const renewLater = () => {
    timer = clock.after(HAND_OVER_LEASE / 3, () => {
      for (const job of jobs) job.renew(HAND_OVER_LEASE).catch(() => {})
      if (clock.now() < until) renewLater()
    })
  }
  renewLater()
  return () => timer.cancel()
}

/** Ends a job that was handed over, or gives it back. Tries until the store answers, up to `until`. Never rejects. */
async function settleJob(job: TakenJob, isSent: boolean, until: number, clock: Clock): Promise<void> {
  for (;;) {
    try {
      if (isSent) await job.complete(undefined)
      else await job.release()
      return
    } catch (error) {
      if (!(error instanceof UnavailableError) || clock.now() >= until) return
      await new Promise<void>((resolve) => clock.after(RETRY_AFTER, resolve))
    }
  }
}
