import type { Hono } from 'hono'
import type { JobPage, RedisQueue } from '../../queue/index.ts'
import type { GatewayDeps } from '../deps.ts'
import { inSeconds } from '../duration.ts'
import type { GatewayEnv, RouteContext } from '../env.ts'
import { objectText, readMembers, textOf } from '../http/json.ts'
import { Query, queueName } from '../http/query.ts'
import { emptyResponse, jsonResponse } from '../http/responses.ts'
import { Problem } from '../problem.ts'

/** Jobs that `/status/:queue?with_desc=1` lists at most. */
const MAX_LISTED = 100
/** Their characters, unless it is only one. */
const MAX_LISTED_LENGTH = 1024 * 1024
/** Jobs that are read at once. */
const LISTED_STEP = 5

/** Queues that are asked at once for what `/stats/` and `/status/?with_desc=1` tell. */
const AT_ONCE = 20
/** Queues that they tell of at most. `size` counts all. */
const MAX_ASKED = 1_000

/** Whole queues: `/j`, `/control`, `/status`, `/stats`, and `DELETE /q`. */
export function queueRoutes(app: Hono<GatewayEnv>, deps: GatewayDeps): void {
  const { access } = deps
  app.delete(
    '/q/:queue',
    access.route('admin', 'changes', (c) => eraseQueue(c, deps)),
  )
  app.get(
    '/j/:queue',
    access.route('read', 'reads', (c) => getCounts(c, deps)),
  )
  app.get(
    '/control/:queue',
    access.route('read', 'reads', (c) => getControl(c, deps)),
  )
  app.post(
    '/control/:queue',
    access.route('admin', 'changes', (c) => setControl(c, deps)),
  )
  app.get(
    '/status/:queue',
    access.route('read', 'reads', (c) => getStatus(c, deps)),
  )
  for (const path of ['/status', '/status/'])
    app.get(
      path,
      access.route('read', 'reads', (c) => getStatuses(c, deps)),
    )
  for (const path of ['/stats', '/stats/'])
    app.get(
      path,
      access.route('read', 'reads', (c) => getStatistics(c, deps)),
    )
  for (const prefix of ['/q', '/qb', '/j', '/control'])
    app.on(
      ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
      [prefix, `${prefix}/`],
      access.route('read', 'reads', () => {
        throw new Problem(404, 'queue name is missing')
      }),
    )
}

function eraseQueue(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  new Query(c, [])
  return deps.queues.use(name, async (queue) => {
    await queue.erase()
    return emptyResponse()
  })
}

function getCounts(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  new Query(c, [])
  return deps.queues.use(name, async (queue) => jsonResponse(200, JSON.stringify(await statisticsOf(queue))))
}

/** What is told of a queue: presque's names, and more. */
async function statisticsOf(queue: RedisQueue): Promise<Record<string, unknown>> {
  const [counts, totals, oldest] = await Promise.all([queue.counts(), queue.totals(), ageOfFirst(queue)])
  return {
    queue_name: queue.name,
    job_count: counts.waiting,
    job_failed: totals.failed,
    job_processed: totals.taken,
    delayed: counts.delayed,
    running: counts.active,
    oldest: oldest ?? null,
  }
}

/** Seconds since the job that runs next was submitted. */
async function ageOfFirst(queue: RedisQueue): Promise<number | undefined> {
  const { jobs } = await queue.jobs('waiting', { limit: 1 })
  const first = jobs[0] && (await queue.job(jobs[0].id))
  // The number of a run is the time at which it was submitted, in µs.
  return first && inSeconds(Math.max(0, Date.now() - first.generation / 1000))
}

function getControl(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  new Query(c, [])
  return deps.queues.use(name, async (queue) => {
    const isStopped = (await queue.paused()).includes('')
    return jsonResponse(200, JSON.stringify({ queue: name, status: isStopped ? '0' : '1' }))
  })
}

function setControl(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  new Query(c, [])
  return deps.queues.use(name, async (queue) => {
    const { status } = await readMembers(c.req.raw, deps, ['status'])
    if (status?.value === 'stop') await queue.pause()
    else if (status?.value === 'start') await queue.resume()
    else throw new Problem(400, 'invalid status', { detail: 'Expected `status` to be "stop" or "start"' })
    return jsonResponse(200, JSON.stringify({ queue: name, response: 'updated' }))
  })
}

function getStatus(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const name = queueName(c)
  const isDescribed = new Query(c, ['with_desc']).flag('with_desc')
  return deps.queues.use(name, async (queue) => {
    const { waiting } = await queue.counts()
    const listed = isDescribed ? await firstJobs(queue) : undefined
    const text = objectText({
      queue: JSON.stringify(name),
      size: String(waiting),
      jobs: listed && `[${listed.join(',')}]`,
    })
    return jsonResponse(200, text)
  })
}

/** The texts of the jobs that run next, as many as an answer may have. */
async function firstJobs(queue: RedisQueue): Promise<string[]> {
  const texts: string[] = []
  let length = 0
  for (let cursor: string | undefined = '0'; cursor !== undefined; ) {
    const page: JobPage = await queue.jobs('waiting', { limit: LISTED_STEP, cursor })
    for (const { payload } of page.jobs) {
      const text = textOf(payload)
      length += text.length
      if (texts.length === MAX_LISTED || (texts.length > 0 && length > MAX_LISTED_LENGTH)) return texts
      texts.push(text)
    }
    cursor = page.cursor
  }
  return texts
}

async function getStatuses(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const isDescribed = new Query(c, ['with_desc']).flag('with_desc')
  const names = await deps.queues.names()
  const queues = isDescribed
    ? await ofEach(deps, names, async (queue) => ({
        queue: queue.name,
        size: (await queue.counts()).waiting,
      }))
    : names
  return jsonResponse(200, JSON.stringify({ queues, size: names.length }))
}

async function getStatistics(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  new Query(c, [])
  const names = await deps.queues.names()
  const queues = await ofEach(deps, names, statisticsOf)
  return jsonResponse(200, JSON.stringify({ queues, size: names.length }))
}

/** Asks the queues that were used last, some at once. */
async function ofEach<T>(
  { queues }: GatewayDeps,
  names: readonly string[],
  ask: (queue: RedisQueue) => Promise<T>,
): Promise<T[]> {
  const answers: T[] = []
  const asked = names.slice(0, MAX_ASKED)
  for (let at = 0; at < asked.length; at += AT_ONCE) {
    const some = asked.slice(at, at + AT_ONCE)
    answers.push(...(await Promise.all(some.map((name) => queues.use(name, ask)))))
  }
  return answers
}
