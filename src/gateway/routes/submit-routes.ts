import type { Hono } from 'hono'
import { ConflictError, RemoteError } from '../../errors.ts'
import type { JsonText } from '../../kernel/codec/json-text.ts'
import type { RedisQueue, SubmitOptions } from '../../queue/index.ts'
import type { GatewayDeps } from '../deps.ts'
import type { GatewayEnv, RouteContext } from '../env.ts'
import { elementTexts, memberTexts, parseJson, readJson, textOf } from '../http/json.ts'
import { checkedKey, invalid, Query, queueName } from '../http/query.ts'
import { jsonResponse } from '../http/responses.ts'
import { waitHasEnded, waitOf, whileWanted } from '../http/waiting.ts'
import { Problem, problemOf } from '../problem.ts'

/** Parameters of all routes that submit. */
const COMMON = ['command', 'delayed', 'delay', 'priority', 'attempts', 'ttl']
const SINGLE = [...COMMON, 'uniq', 'key', 'wait', 'abort']

/** Longest delay, ms: that of a queue. */
const MAX_DELAY = 365 * 24 * 60 * 60_000
/** Longest retention of a result, ms: that of a queue. */
const MAX_TTL = 10 * MAX_DELAY
const MAX_PRIORITY = 1_000_000
const MAX_ATTEMPTS = 1_000_000

/** Jobs are posted: `POST /q/:queue` one, `POST /qb/:queue` several. */
export function submitRoutes(app: Hono<GatewayEnv>, deps: GatewayDeps): void {
  const { access } = deps
  app.post(
    '/q/:queue',
    access.route('submit', 'changes', (c) => postJob(c, deps)),
  )
  app.post(
    '/qb/:queue',
    access.route('submit', 'changes', (c) => postJobs(c, deps)),
  )
}

/** The job of a request, which must have one. */
export async function readJob(request: Request, deps: GatewayDeps): Promise<JsonText> {
  const job = await readJson(request, deps)
  if (!job) throw new Problem(400, 'job is missing')
  return job
}

/** A post: the job, how it is submitted, and what the client waits for. */
interface Post {
  readonly queue: string
  readonly command: string
  readonly job: JsonText
  readonly options: SubmitOptions
  readonly dedupe: 'none' | 'uniq' | 'key'
}

async function postJob(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const queue = queueName(c)
  const query = new Query(c, SINGLE)
  const command = query.command()
  const { dedupe, options } = dedupeOptions(query, c.req.header('idempotency-key'))
  const wait = waitOf(c, query, deps)
  const abortUnwanted = query.word('abort', ['unwanted']) !== undefined
  // Nobody would be there to leave.
  if (abortUnwanted && wait === 0) throw invalid('abort', 'beside `wait`', 'unwanted')
  const submitOptions = { ...commonOptions(query), ...options, abortUnwanted }
  const job = await readJob(c.req.raw, deps)
  const post: Post = { queue, command, job, dedupe, options: submitOptions }
  try {
    return await deps.queues.use(queue, (opened) =>
      wait > 0 ? submitAndWait(c, deps, opened, post, wait) : submit(deps, opened, post),
    )
  } catch (error) {
    throw refusalOf(error, dedupe)
  }
}

async function submit(deps: GatewayDeps, queue: RedisQueue, post: Post): Promise<Response> {
  const { id, disposition } = await queue.enqueue(post.command, post.job, post.options)
  const headers = { location: locationOf(deps, post.queue, id) }
  return jsonResponse(disposition === 'created' ? 201 : 200, JSON.stringify({ id, disposition }), headers)
}

/** Answers with the result. The job was accepted then, and goes on when the client is gone, or the wait ends: 202. */
async function submitAndWait(
  { req }: RouteContext,
  deps: GatewayDeps,
  queue: RedisQueue,
  { queue: name, command, job: payload, options }: Post,
  wait: number,
): Promise<Response> {
  const job = await queue.enqueue(command, payload, options)
  try {
    const result: unknown = await whileWanted(req.raw, deps.lifecycle, (signal) =>
      job.result({ timeout: wait, signal }),
    )
    return jsonResponse(200, textOf(result))
  } catch (error) {
    // A job that is cancelled when nobody waits does not go on.
    if (!waitHasEnded(error) || options.abortUnwanted) throw error
    return jsonResponse(202, JSON.stringify({ id: job.id }), { location: locationOf(deps, name, job.id) })
  }
}

function locationOf({ options }: GatewayDeps, queue: string, id: string): string {
  return `${options.basePath}/j/${encodeURIComponent(queue)}/${id}`
}

/** The answer to a submission that failed. With an idempotency key, another payload is 422. */
function refusalOf(error: unknown, dedupe: Post['dedupe']): unknown {
  if (error instanceof ConflictError) {
    if (dedupe === 'key')
      return new Problem(422, 'key was used for another job', {
        detail: 'A job with another payload is there under the key',
      })
    return new Problem(409, 'job already exists')
  }
  if (!(error instanceof RemoteError)) return error
  return problemOf(error)?.withId(error.key)
}

/** As many as one request takes. */
const MAX_JOBS = 1_000

/** Jobs of one post, each byte for byte. All are checked before the first is submitted. */
async function postJobs(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const queue = queueName(c)
  const query = new Query(c, COMMON)
  const command = query.command()
  const options = { ...commonOptions(query), dedupe: false as const }
  const { text } = await readJob(c.req.raw, deps)
  const jobs = elementTexts(memberTexts(text)?.get('jobs') ?? '')
  if (!jobs) throw new Problem(400, 'jobs should be an array of job')
  if (jobs.length > MAX_JOBS)
    throw new Problem(413, 'too many jobs', { detail: `At most ${MAX_JOBS} in one post` })
  const bulk = jobs.map((job) => ({ command, payload: parseJson(job), options }))
  const submitted = await deps.queues.use(queue, (opened) => opened.enqueueMany(bulk))
  const answers = submitted.map(({ id, disposition }) => ({ id, disposition }))
  return jsonResponse(201, JSON.stringify({ jobs: answers }))
}

function commonOptions(query: Query): SubmitOptions {
  const delay = delayOf(query)
  const priority = query.count('priority', 0, MAX_PRIORITY)
  const attempts = query.count('attempts', 1, MAX_ATTEMPTS)
  const ttl = query.duration('ttl', { max: MAX_TTL })
  return { delay, priority, attempts, ttl }
}

/** ms until the job may start: `delay` is a duration, `delayed` a time in seconds since 1970, as in presque. */
function delayOf(query: Query): number | undefined {
  const delay = query.duration('delay', { max: MAX_DELAY })
  const delayed = query.text('delayed')
  if (delayed === undefined) return delay
  if (delay !== undefined) throw invalid('delayed', 'without `delay`', delayed)
  const left = /^\d{1,12}(?:\.\d{1,6})?$/.test(delayed) ? Number(delayed) * 1000 - Date.now() : Number.NaN
  if (left <= MAX_DELAY) return Math.max(0, left)
  throw invalid('delayed', 'seconds since 1970, at most a year from now', delayed)
}

/**
 * What makes a job unique. `uniq`: nothing is posted while a job of this key waits. `key`, or `Idempotency-Key`: the same post
 * is answered with the same job.
 */
function dedupeOptions(query: Query, header: string | undefined): Pick<Post, 'dedupe' | 'options'> {
  const uniq = query.key('uniq')
  const fromHeader = header === undefined ? undefined : checkedKey('Idempotency-Key', header)
  const key = query.key('key') ?? fromHeader
  if (fromHeader !== undefined && key !== fromHeader)
    throw invalid('key', 'the same as `Idempotency-Key`', key ?? '')
  if (uniq === undefined && key === undefined) return { dedupe: 'none', options: { dedupe: false } }
  if (uniq === undefined) return { dedupe: 'key', options: { dedupe: `k:${key}`, conflict: 'reject' } }
  if (key !== undefined) throw invalid('uniq', 'without `key` and `Idempotency-Key`', uniq)
  return { dedupe: 'uniq', options: { dedupe: `u:${uniq}`, conflict: 'exclusive' } }
}
