import { RemoteError, RemovedError } from '../../errors.ts'
import type { Job, JobStatus, RedisQueue } from '../../queue/index.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { isFinished } from '../events/job-feed.ts'
import { type Answer, emptyAnswer, jsonAnswer } from '../http/answer.ts'
import { jobMembers } from '../http/job-text.ts'
import { objectText } from '../http/json.ts'
import { queueName } from '../http/names.ts'
import type { ParameterValues } from '../http/parameters.ts'
import { waitHasEnded, waitOf, waitParameter, whileWanted } from '../http/waiting.ts'
import { type JobView, jobView } from '../overview/job-view.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

const WAITING = { wait: waitParameter('How long to wait for the outcome.') }

const MISSING = 'There is no such job.'

/** One job. */
export const JOB_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/j/:queue/:id',
    scope: 'read',
    effect: 'reads',
    summary: 'The state of a job; with `wait`, when it has finished.',
    query: WAITING,
    headers: { Prefer: '`wait=30`: as the parameter `wait`, in seconds.' },
    answers: { 200: 'Its state. `result` or `failure` is there if it has one.', 404: MISSING },
    handle: getJob,
  }),
  route({
    method: 'GET',
    path: '/j/:queue/:id/log',
    scope: 'read',
    effect: 'reads',
    summary: 'The lines that the workers of a job logged.',
    answers: { 200: '`{ id, log }`.', 404: MISSING },
    handle: getLog,
  }),
  route({
    method: 'POST',
    path: '/j/:queue/:id/cancel',
    scope: 'admin',
    effect: 'changes',
    action: 'cancel',
    summary: 'Cancels a job.',
    answers: { 200: '`{ id, response }`.', 404: MISSING, 409: 'It has finished.' },
    handle: (c, deps) =>
      change(c, deps, async (queue, id) => {
        if (!(await queue.cancel(id))) throw new Problem(409, 'job has finished', { id })
        return jsonAnswer(200, JSON.stringify({ id, response: 'cancelled' }))
      }),
  }),
  route({
    method: 'POST',
    path: '/j/:queue/:id/retry',
    scope: 'admin',
    effect: 'changes',
    action: 'retry',
    summary: 'Runs a job again that has finished.',
    answers: { 200: '`{ id, response }`.', 404: MISSING, 409: 'It has not finished.' },
    handle: (c, deps) =>
      change(c, deps, async (queue, id) => {
        if (!(await queue.retry(id))) throw new Problem(409, 'job has not finished', { id })
        return jsonAnswer(200, JSON.stringify({ id, response: 'retried' }))
      }),
  }),
  route({
    method: 'DELETE',
    path: '/j/:queue/:id',
    scope: 'admin',
    effect: 'changes',
    action: 'remove',
    summary: 'Removes a job.',
    answers: { 204: 'It was removed.', 404: MISSING },
    handle: (c, deps) =>
      change(c, deps, async (queue, id) => {
        if (!(await queue.remove(id))) throw noSuchJob()
        return emptyAnswer()
      }),
  }),
]

function idOf({ req }: RouteContext): string {
  return req.param('id') ?? ''
}

function noSuchJob(): Problem {
  return new Problem(404, 'no such job')
}

/** Changes a job that must be there. */
function change(
  c: RouteContext,
  deps: GatewayDeps,
  run: (queue: RedisQueue, id: string) => Promise<Answer>,
): Promise<Answer> {
  const name = queueName(c)
  return deps.queues.use(name, async (queue) => {
    const status = await queue.status(idOf(c))
    if (!status || status.state === 'removed') throw noSuchJob()
    return run(queue, status.id)
  })
}

/** The state of a job. With `wait`, when it has finished, or at the end of the wait. */
function getJob(c: RouteContext, deps: GatewayDeps, query: ParameterValues<typeof WAITING>): Promise<Answer> {
  const name = queueName(c)
  const wait = waitOf(c, query, deps)
  const { queues } = deps
  const answer = async (queue: RedisQueue) => {
    const status = await (wait > 0 ? finishedStatus(c, deps, queue, wait) : queue.status(idOf(c)))
    if (!status) throw noSuchJob()
    return jsonAnswer(200, statusText(name, status, await jobView(deps.overviewSources, queue, status)))
  }
  return wait > 0 ? queues.wait(name, answer) : queues.use(name, answer)
}

/**
 * The state of a job when it has finished, or at the end of the wait. When a run has ended and the next one of the same id has
 * begun, as of jobs that are posted under one `uniq`, that one is waited for.
 */
async function finishedStatus(
  c: RouteContext,
  deps: GatewayDeps,
  queue: RedisQueue,
  wait: number,
): Promise<JobStatus | undefined> {
  const until = deps.clock.now() + wait
  for (;;) {
    const job = await queue.job(idOf(c))
    const left = until - deps.clock.now()
    const isOver = !job || left <= 0 || !(await hasEnded(c, deps, queue, job, left))
    const status = await job?.status()
    if (isOver || !status || isFinished(status)) return status
  }
}

/** Resolves when a run of the job has ended, or, with false, when its outcome is not waited for any more. */
async function hasEnded(
  c: RouteContext,
  deps: GatewayDeps,
  queue: RedisQueue,
  job: Job,
  wait: number,
): Promise<boolean> {
  try {
    // A GET is no wish for the job: it does not cancel one that is unwanted when its client leaves.
    await whileWanted(c, deps.lifecycle, (signal) => queue.result(job, { timeout: wait, signal }, true))
  } catch (error) {
    if (waitHasEnded(error)) return false
    if (!(error instanceof RemoteError || error instanceof RemovedError)) throw error
  }
  return true
}

function statusText(queue: string, status: JobStatus, { why, due, runner }: JobView): string {
  return objectText({
    ...jobMembers(queue, status),
    due: due === undefined ? undefined : String(due),
    runner: runner && JSON.stringify(runner),
    why: JSON.stringify(why),
  })
}

function getLog(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const name = queueName(c)
  return deps.queues.use(name, async (queue) => {
    const id = idOf(c)
    const lines = await queue.logs(id)
    if (lines.length === 0 && !(await queue.status(id))) throw noSuchJob()
    return jsonAnswer(200, JSON.stringify({ id, log: lines }))
  })
}
