import type { Hono } from 'hono'
import { JsonText } from '../../kernel/codec/json-text.ts'
import type { RedisQueue, TakenJob } from '../../queue/index.ts'
import type { GatewayDeps } from '../deps.ts'
import { inSeconds } from '../duration.ts'
import type { GatewayEnv, RouteContext } from '../env.ts'
import { checkProgress, readJson, readMembers } from '../http/json.ts'
import { leasedJob, leaseLost, MAX_LEASE, MIN_LEASE } from '../http/lease.ts'
import { Query, queueName } from '../http/query.ts'
import { errorOf } from '../http/reason.ts'
import { emptyResponse, jsonResponse } from '../http/responses.ts'
import { Problem } from '../problem.ts'
import { readJob } from './submit-routes.ts'

/** Jobs that were taken are finished, failed, given back and renewed, by the header X-Lease. */
export function finishRoutes(app: Hono<GatewayEnv>, deps: GatewayDeps): void {
  const { access } = deps
  app.put(
    '/q/:queue',
    access.route('work', 'changes', (c) => putJob(c, deps)),
  )
  app.patch(
    '/q/:queue',
    access.route('work', 'changes', (c) => renewJob(c, deps)),
  )
}

/** With a lease: the result of the job, or why it failed. Without one: a job that was taken for good is put back. */
function putJob(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  const query = new Query(c, ['command', 'failed', 'again'])
  const failed = query.flag('failed')
  const again = query.flag('again')
  if (failed && again)
    throw new Problem(400, 'invalid parameter', { detail: 'Expected `failed` or `again`, got both' })
  return deps.queues.use(name, async (queue) => {
    const leased = leasedJob(c, queue)
    if (!leased) return await putBack(c, deps, queue, query)
    const { job } = leased
    if (!(await end(c.req.raw, deps, job, { failed, again }))) throw leaseLost(job.id)
    return emptyResponse()
  })
}

/** Resolves with false if the job is not held any more. */
async function end(
  request: Request,
  deps: GatewayDeps,
  job: TakenJob,
  { failed, again }: { failed: boolean; again: boolean },
): Promise<boolean> {
  if (again) return job.release()
  const body = await readJson(request, deps)
  return failed ? job.fail(errorOf(body)) : job.complete(body)
}

/** presque's: the body is a job again, and counts as failed. */
async function putBack(
  c: RouteContext,
  deps: GatewayDeps,
  queue: RedisQueue,
  query: Query,
): Promise<Response> {
  if (query.has('failed') || query.has('again')) throw new Problem(400, 'lease is missing')
  const job = await readJob(c.req.raw, deps)
  const [{ id, disposition }] = await Promise.all([
    queue.enqueue(query.command(), job, { dedupe: false }),
    // The counter is not worth a second job, which a client that repeats the request would make.
    queue.countFailure().catch(() => {}),
  ])
  return jsonResponse(201, JSON.stringify({ id, disposition }))
}

/** Renews the lease, and notes progress and lines of the log. */
function renewJob(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  const query = new Query(c, ['lease'])
  return deps.queues.use(name, async (queue) => {
    const leased = leasedJob(c, queue)
    if (!leased) throw new Problem(400, 'lease is missing')
    const { job } = leased
    const lease = query.duration('lease', { min: MIN_LEASE, max: MAX_LEASE }) ?? leased.lease
    const { progress, log } = await readMembers(c.req.raw, deps, ['progress', 'log'])
    const lines = log === undefined ? [] : linesOf(log.value)
    checkProgress(progress?.text)
    const renewal = await job.renew(lease)
    if (renewal === 'lost') throw leaseLost(job.id)
    const cancelled = renewal === 'cancelled'
    if (!cancelled && progress) await job.progress(JsonText.parse(progress.text))
    if (!cancelled) await job.log(...lines)
    return jsonResponse(200, JSON.stringify({ left: cancelled ? 0 : inSeconds(lease), cancelled }))
  })
}

/** Most lines of one request: as many as a log keeps. */
const MAX_LINES = 1_000

/** @throws Problem 400 */
function linesOf(log: unknown): string[] {
  const lines = Array.isArray(log) ? log : [log]
  if (lines.length <= MAX_LINES && lines.every((line) => typeof line === 'string')) return lines
  throw new Problem(400, 'invalid json', {
    detail: `Expected \`log\` to be a text, or an array of at most ${MAX_LINES} texts`,
  })
}
