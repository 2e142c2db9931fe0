import { z } from 'zod'
import type { JobPage, RedisQueue } from '../../queue/index.ts'
import { noteAction } from '../clients/audit.ts'
import type { GatewayDeps } from '../deps.ts'
import { inSeconds } from '../duration.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, emptyAnswer, jsonAnswer } from '../http/answer.ts'
import { objectText, readMembers, textOf } from '../http/json.ts'
import { queueName } from '../http/names.ts'
import { flag, type ParameterValues } from '../http/parameters.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

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

const DESCRIBED = { with_desc: flag('Tells more of each.') }

const CONTROL = z.strictObject({ status: z.enum(['stop', 'start']) })

type DescribedQuery = ParameterValues<typeof DESCRIBED>

/** Whole queues. */
export const QUEUE_ROUTES: readonly Route[] = [
  route({
    method: 'DELETE',
    path: '/q/:queue',
    scope: 'admin',
    effect: 'changes',
    action: 'erase',
    summary: 'Removes the jobs of a queue that wait, and its counters.',
    answers: { 204: 'They were removed.' },
    handle: eraseQueue,
  }),
  route({
    method: 'GET',
    path: '/j/:queue',
    scope: 'read',
    effect: 'reads',
    summary: 'The counters of a queue.',
    answers: { 200: '`{ queue_name, job_count, job_failed, job_processed, delayed, running, oldest }`.' },
    handle: getCounts,
  }),
  route({
    method: 'GET',
    path: '/control/:queue',
    scope: 'read',
    effect: 'reads',
    summary: 'Whether a queue is stopped.',
    answers: { 200: '`{ queue, status }`: "1", or "0" if it is stopped.' },
    handle: getControl,
  }),
  route({
    method: 'POST',
    path: '/control/:queue',
    scope: 'admin',
    effect: 'changes',
    action: 'control',
    summary: 'Stops or starts a queue. While it is stopped, jobs are posted, and none are taken.',
    body: { description: 'What to do.', schema: CONTROL, required: true },
    answers: { 200: '`{ queue, response }`.' },
    handle: setControl,
  }),
  route({
    method: 'GET',
    path: '/status/:queue',
    scope: 'read',
    effect: 'reads',
    summary: 'How many jobs of a queue wait, and which run next.',
    query: DESCRIBED,
    answers: { 200: '`{ queue, size, jobs? }`.' },
    handle: getStatus,
  }),
  route({
    method: 'GET',
    path: ['/status/', '/status'],
    scope: 'read',
    effect: 'reads',
    summary: 'The queues that were used in the last 30 days, the last used first.',
    query: DESCRIBED,
    answers: { 200: '`{ queues, size }`.' },
    handle: getStatuses,
  }),
  route({
    method: 'GET',
    path: ['/stats/', '/stats'],
    scope: 'read',
    effect: 'reads',
    summary: 'The counters of the queues that were used last.',
    answers: { 200: '`{ queues, size }`.' },
    handle: getStatistics,
  }),
  ...(['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).map((method) =>
    route({
      method,
      path: ['/q', '/qb', '/j', '/control'].flatMap((prefix) => [prefix, `${prefix}/`]),
      scope: 'read',
      effect: 'reads',
      handle() {
        throw new Problem(404, 'queue name is missing')
      },
    }),
  ),
]

function eraseQueue(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const name = queueName(c)
  return deps.queues.use(name, async (queue) => {
    await queue.erase()
    return emptyAnswer()
  })
}

function getCounts(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const name = queueName(c)
  return deps.queues.use(name, async (queue) => jsonAnswer(200, JSON.stringify(await statisticsOf(queue))))
}

/** What is told of a queue: presque's names, and more. */
async function statisticsOf(queue: RedisQueue): Promise<Record<string, unknown>> {
  const [counts, totals, oldest] = await Promise.all([queue.counts(), queue.totals(), ageOfFirst(queue)])
  return {
    queue_name: queue.name,
    job_count: counts.waiting,
    job_failed: totals.failed,
    // A hand-over whose client was gone does not count.
    job_processed: Math.max(0, totals.taken - totals.returned),
    delayed: counts.delayed,
    running: counts.active,
    oldest: oldest ?? null,
  }
}

/** Seconds since the job that runs next was submitted; undefined if none waits. */
async function ageOfFirst(queue: RedisQueue): Promise<number | undefined> {
  const { jobs } = await queue.jobs('waiting', { limit: 1 })
  const first = jobs[0] && (await queue.job(jobs[0].id))
  // The number of a run is the time at which it was submitted, in µs.
  return first && inSeconds(Math.max(0, Date.now() - first.generation / 1000))
}

function getControl(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const name = queueName(c)
  return deps.queues.use(name, async (queue) => {
    const isStopped = (await queue.paused()).includes('')
    return jsonAnswer(200, JSON.stringify({ queue: name, status: isStopped ? '0' : '1' }))
  })
}

function setControl(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const name = queueName(c)
  return deps.queues.use(name, async (queue) => {
    const { values } = await readMembers(c, deps, CONTROL)
    noteAction(c, { action: values.status })
    if (values.status === 'stop') await queue.pause()
    else await queue.resume()
    return jsonAnswer(200, JSON.stringify({ queue: name, response: 'updated' }))
  })
}

function getStatus(c: RouteContext, deps: GatewayDeps, { with_desc }: DescribedQuery): Promise<Answer> {
  const name = queueName(c)
  return deps.queues.use(name, async (queue) => {
    const { waiting } = await queue.counts()
    const listed = with_desc ? await firstJobs(queue) : undefined
    const text = objectText({
      queue: JSON.stringify(name),
      size: String(waiting),
      jobs: listed && `[${listed.join(',')}]`,
    })
    return jsonAnswer(200, text)
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

async function getStatuses(
  _c: RouteContext,
  deps: GatewayDeps,
  { with_desc }: DescribedQuery,
): Promise<Answer> {
  const names = await deps.queues.names()
  const queues = with_desc
    ? await ofEach(deps, names, async (queue) => ({
        queue: queue.name,
        size: (await queue.counts()).waiting,
      }))
    : names
  return jsonAnswer(200, JSON.stringify({ queues, size: names.length }))
}

async function getStatistics(_c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const names = await deps.queues.names()
  const queues = await ofEach(deps, names, statisticsOf)
  return jsonAnswer(200, JSON.stringify({ queues, size: names.length }))
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
