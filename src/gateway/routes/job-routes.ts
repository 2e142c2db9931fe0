import type { Hono } from 'hono'
import { RemoteError, RemovedError } from '../../errors.ts'
import type { Job, JobStatus, RedisQueue } from '../../queue/index.ts'
import type { GatewayDeps } from '../deps.ts'
import type { GatewayEnv, RouteContext } from '../env.ts'
import { objectText, textOf } from '../http/json.ts'
import { Query, queueName } from '../http/query.ts'
import { emptyResponse, jsonResponse } from '../http/responses.ts'
import { waitHasEnded, waitOf, whileWanted } from '../http/waiting.ts'
import { Problem } from '../problem.ts'

/** One job: `/j/:queue/:id`. */
export function jobRoutes(app: Hono<GatewayEnv>, deps: GatewayDeps): void {
  const { access } = deps
  app.get(
    '/j/:queue/:id',
    access.route('read', 'reads', (c) => getJob(c, deps)),
  )
  app.get(
    '/j/:queue/:id/log',
    access.route('read', 'reads', (c) => getLog(c, deps)),
  )
  app.post(
    '/j/:queue/:id/cancel',
    access.route('admin', 'changes', (c) =>
      change(c, deps, async (queue, id) => {
        if (!(await queue.cancel(id))) throw new Problem(409, 'job has finished', { id })
        return jsonResponse(200, JSON.stringify({ id, response: 'cancelled' }))
      }),
    ),
  )
  app.post(
    '/j/:queue/:id/retry',
    access.route('admin', 'changes', (c) =>
      change(c, deps, async (queue, id) => {
        if (!(await queue.retry(id))) throw new Problem(409, 'job has not finished', { id })
        return jsonResponse(200, JSON.stringify({ id, response: 'retried' }))
      }),
    ),
  )
  app.delete(
    '/j/:queue/:id',
    access.route('admin', 'changes', (c) =>
      change(c, deps, async (queue, id) => {
        if (!(await queue.remove(id))) throw noSuchJob()
        return emptyResponse()
      }),
    ),
  )
}

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
  run: (queue: RedisQueue, id: string) => Promise<Response>,
): Promise<Response> {
  const name = queueName(c)
  new Query(c, [])
  return deps.queues.use(name, async (queue) => {
    const status = await queue.status(idOf(c))
    if (!status || status.state === 'removed') throw noSuchJob()
    return run(queue, status.id)
  })
}

/** The state of a job. With `wait`, when it has finished, or at the end of the wait. */
function getJob(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  const query = new Query(c, ['wait'])
  const wait = waitOf(c, query, deps)
  return deps.queues.use(name, async (queue) => {
    const job = await queue.job(idOf(c))
    if (!job) throw noSuchJob()
    if (wait > 0) await finished(c, deps, job, wait)
    const status = await job.status()
    if (!status) throw noSuchJob()
    return jsonResponse(200, statusText(name, status))
  })
}

/** Resolves when the job has finished, or its outcome is not waited for any more. */
async function finished(c: RouteContext, deps: GatewayDeps, job: Job, wait: number): Promise<void> {
  try {
    await whileWanted(c.req.raw, deps.lifecycle, (signal) => job.result({ timeout: wait, signal }))
  } catch (error) {
    const hasEnded = error instanceof RemoteError || error instanceof RemovedError
    if (!hasEnded && !waitHasEnded(error)) throw error
  }
}

/** `failure` and `result` are there if the job has one. Result and progress stand there byte for byte. */
function statusText(queue: string, status: JobStatus): string {
  const { id, command, state, retries, stalls, waiters, payload, progress, failure } = status
  return objectText({
    id: JSON.stringify(id),
    queue: JSON.stringify(queue),
    command: JSON.stringify(command),
    state: JSON.stringify(state),
    retries: String(retries),
    stalls: String(stalls),
    waiters: String(waiters),
    job: textOf(payload),
    progress: progress === undefined ? undefined : textOf(progress),
    result: 'result' in status ? textOf(status.result) : undefined,
    failure: failure && JSON.stringify(failure),
  })
}

function getLog(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  new Query(c, [])
  return deps.queues.use(name, async (queue) => {
    const id = idOf(c)
    const lines = await queue.logs(id)
    if (lines.length === 0 && !(await queue.status(id))) throw noSuchJob()
    return jsonResponse(200, JSON.stringify({ id, log: lines }))
  })
}
