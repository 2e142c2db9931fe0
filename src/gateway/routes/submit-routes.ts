import { z } from 'zod'
import { ConflictError, RemoteError } from '../../errors.ts'
import type { JsonText } from '../../kernel/codec/json-text.ts'
import { DEFAULT_COMMAND } from '../../kernel/names.ts'
import type { PostJobOptions, RedisQueue, SubmitOptions } from '../../queue/index.ts'
import { MAX_DELAY, MAX_POST_JOBS } from '../../queue/internal.ts'
import { noteAction } from '../clients/audit.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, jsonAnswer } from '../http/answer.ts'
import { elementTexts, memberTexts, parseJson, readJson, textOf } from '../http/json.ts'
import { checkedKey, invalidParameter, queueName } from '../http/names.ts'
import { command, count, duration, key, type ParameterValues, text, word } from '../http/parameters.ts'
import { waitHasEnded, waitOf, waitParameter, whileWanted } from '../http/waiting.ts'
import { Problem, problemOf } from '../problem.ts'
import { type Route, route } from './route.ts'

/** Longest retention of a result, ms: that of a queue. */
const MAX_TTL = 10 * MAX_DELAY
const MAX_PRIORITY = 1_000_000
const MAX_ATTEMPTS = 1_000_000
/** Longest text of a time. */
const MAX_TIME_LENGTH = 32

/** Parameters of all routes that submit. */
const COMMON = {
  command,
  delayed: text('When the job may start: seconds since 1970.', MAX_TIME_LENGTH),
  delay: duration('How long the job is delayed.', { max: MAX_DELAY }),
  priority: count('Jobs of a higher priority run first.', 0, MAX_PRIORITY),
  attempts: count('How often the job is tried.', 1, MAX_ATTEMPTS),
  ttl: duration('How long the result is kept.', { max: MAX_TTL }),
}

const SEVERAL = {
  ...COMMON,
  key: key('The same post is answered with the same jobs, for a day.'),
}

const SINGLE = {
  ...COMMON,
  uniq: key('Refused while a job of this key waits.'),
  key: key('The same post is answered with the same job.'),
  wait: waitParameter('How long to wait for the result.'),
  abort: word('`unwanted`: the job is cancelled when nobody waits for it any more. Needs `wait`.', [
    'unwanted',
  ]),
}

/** Jobs are posted. */
export const SUBMIT_ROUTES: readonly Route[] = [
  route({
    method: 'POST',
    path: '/q/:queue',
    scope: 'submit',
    effect: 'changes',
    action: 'submit',
    summary: 'Posts a job, and waits for its result if it is asked to.',
    query: SINGLE,
    headers: {
      'Idempotency-Key': 'As the parameter `key`.',
      Prefer: '`wait=30`: as the parameter `wait`, in seconds.',
    },
    body: { description: 'The job: any JSON, kept byte for byte.', required: true },
    answers: {
      200: 'The result, if the request waits; else the id of the job that was there under the key.',
      201: 'The job was posted: `{ id, disposition }`. `Location` names it.',
      202: 'The wait has ended: `{ id }`. The job goes on.',
      409: 'A job is there under `uniq`.',
      410: 'The job was removed.',
      422: 'The key was used for another job.',
      500: 'The job failed: `failure` says why.',
      504: 'The wait has ended, with `abort=unwanted`: the job is cancelled, unless others wait for it.',
    },
    handle: postJob,
  }),
  route({
    method: 'POST',
    path: '/qb/:queue',
    scope: 'submit',
    effect: 'changes',
    action: 'submit',
    summary: 'Posts several jobs: all of them, or none.',
    query: SEVERAL,
    headers: { 'Idempotency-Key': 'As the parameter `key`.' },
    body: {
      description: `The jobs, each kept byte for byte, at most ${MAX_POST_JOBS}.`,
      schema: z.object({ jobs: z.array(z.json()).max(MAX_POST_JOBS) }),
      required: true,
    },
    answers: {
      200: 'The same post is known under the key: `{ jobs: [{ id, disposition }] }`, with the same ids.',
      201: 'All were posted: `{ jobs: [{ id, disposition }] }`.',
      413: 'There are too many, or they are too large together. None was posted.',
      422: 'Another post is known under the key. None was posted.',
      503: 'Redis has not answered. None was posted, unless `detail` says that it may have taken effect: then all may be.',
    },
    handle: postJobs,
  }),
]

type CommonQuery = ParameterValues<typeof COMMON>
type SeveralQuery = ParameterValues<typeof SEVERAL>
type SingleQuery = ParameterValues<typeof SINGLE>

/** The job of a request, which must have one. */
export async function readJob(c: RouteContext, deps: GatewayDeps): Promise<JsonText> {
  const job = await readJson(c, deps)
  if (!job) throw new Problem(400, 'job is missing')
  return job
}

/** A post: the job, how it is submitted, and what the client waits for. */
interface JobPost {
  readonly queue: string
  readonly command: string
  readonly job: JsonText
  readonly options: SubmitOptions
  readonly dedupe: 'none' | 'uniq' | 'key'
}

async function postJob(c: RouteContext, deps: GatewayDeps, query: SingleQuery): Promise<Answer> {
  const queue = queueName(c)
  const { command = DEFAULT_COMMAND } = query
  const { dedupe, options } = dedupeOptions(query, c.req.header('idempotency-key'))
  const wait = waitOf(c, query, deps)
  const abortUnwanted = query.abort === 'unwanted'
  // Nobody would be there to leave.
  if (abortUnwanted && wait === 0) throw invalidParameter('abort', 'beside `wait`', 'unwanted')
  const submitOptions = { ...commonOptions(query), ...options, abortUnwanted }
  const job = await readJob(c, deps)
  const post: JobPost = { queue, command, job, dedupe, options: submitOptions }
  try {
    if (wait === 0) return await deps.queues.use(queue, (opened) => submit(c, deps, opened, post))
    return await deps.queues.wait(queue, (opened) => submitAndWait(c, deps, opened, post, wait))
  } catch (error) {
    throw refusalOf(error, dedupe)
  }
}

async function submit(c: RouteContext, deps: GatewayDeps, queue: RedisQueue, post: JobPost): Promise<Answer> {
  const { id, disposition } = await queue.enqueue(post.command, post.job, post.options)
  noteAction(c, { id })
  const headers = { location: locationOf(deps, post.queue, id) }
  return jsonAnswer(disposition === 'created' ? 201 : 200, JSON.stringify({ id, disposition }), headers)
}

/** Answers with the result; at the end of the wait 202, or 504 with `abort=unwanted`. */
async function submitAndWait(
  c: RouteContext,
  deps: GatewayDeps,
  queue: RedisQueue,
  { queue: name, command, job: payload, options }: JobPost,
  wait: number,
): Promise<Answer> {
  const { id, accepted, outcome } = await whileWanted(c, deps.lifecycle, async (signal) => {
    // The job is posted also for a client that is gone.
    const limits = signal.aborted ? { timeout: 1 } : { timeout: wait, signal }
    const begun = queue.begin(command, payload, { ...options, ...limits })
    noteAction(c, { id: begun.id })
    await begun.outcome.catch(() => {})
    return begun
  })
  try {
    const result = await outcome
    return jsonAnswer(200, textOf(result))
  } catch (error) {
    // A job that is cancelled when nobody waits does not go on.
    if (!waitHasEnded(error) || options.abortUnwanted) throw error
    await accepted()
    return jsonAnswer(202, JSON.stringify({ id }), { location: locationOf(deps, name, id) })
  }
}

function locationOf({ options }: GatewayDeps, queue: string, id: string): string {
  return `${options.basePath}/j/${encodeURIComponent(queue)}/${id}`
}

/** The answer to a submission that failed. With an idempotency key, another payload is 422. */
function refusalOf(error: unknown, dedupe: JobPost['dedupe']): unknown {
  if (error instanceof ConflictError) {
    if (dedupe === 'key')
      return new Problem(422, 'key was used for another job', {
        detail: 'A job with another payload is there under the key',
      })
    return new Problem(409, 'job already exists')
  }
  if (!(error instanceof RemoteError)) return error
  return problemOf(error)?.about(error.key)
}

/** Posts several jobs, each byte for byte: all of them, or none. */
async function postJobs(c: RouteContext, deps: GatewayDeps, query: SeveralQuery): Promise<Answer> {
  const queue = queueName(c)
  const { command = DEFAULT_COMMAND } = query
  const key = keyOf(query, c.req.header('idempotency-key'))
  const common = commonOptions(query)
  const { text } = await readJob(c, deps)
  const jobs = elementTexts(memberTexts(text)?.get('jobs') ?? '')
  if (!jobs) throw new Problem(400, 'jobs should be an array of job')
  if (jobs.length > MAX_POST_JOBS)
    throw new Problem(413, 'too many jobs', { detail: `At most ${MAX_POST_JOBS} in one post` })
  const post = jobs.map((job) => ({ command, payload: parseJson(job), options: common }))
  try {
    const posted = await deps.queues.use(queue, (opened) => opened.enqueueAll(post, { dedupe: key ?? false }))
    noteAction(c, { count: posted.length })
    const answers = posted.map(({ id, disposition }) => ({ id, disposition }))
    const isNew = answers.every(({ disposition }) => disposition === 'created')
    return jsonAnswer(isNew ? 201 : 200, JSON.stringify({ jobs: answers }))
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
    const detail = 'Another post is known under the key; none of these jobs was posted'
    throw new Problem(422, 'key was used for another job', { detail })
  }
}

function commonOptions(query: CommonQuery): PostJobOptions {
  const { priority, attempts, ttl } = query
  return { delay: delayOf(query), priority, attempts, ttl }
}

/** ms until the job may start. */
function delayOf({ delay, delayed }: CommonQuery): number | undefined {
  if (delayed === undefined) return delay
  if (delay !== undefined) throw invalidParameter('delayed', 'without `delay`', delayed)
  const left = /^\d{1,12}(?:\.\d{1,6})?$/.test(delayed) ? Number(delayed) * 1000 - Date.now() : Number.NaN
  if (left <= MAX_DELAY) return Math.max(0, left)
  throw invalidParameter('delayed', 'seconds since 1970, at most a year from now', delayed)
}

/**
 * What makes a job unique. `uniq`: nothing is posted while a job of this key waits. `key`, or `Idempotency-Key`: the same post
 * is answered with the same job.
 */
function dedupeOptions(query: SingleQuery, header: string | undefined): Pick<JobPost, 'dedupe' | 'options'> {
  const { uniq } = query
  const key = keyOf(query, header)
  if (uniq === undefined)
    return key === undefined
      ? { dedupe: 'none', options: dedupedBy(false) }
      : { dedupe: 'key', options: dedupedBy(`k:${key}`) }
  if (key !== undefined) throw invalidParameter('uniq', 'without `key` and `Idempotency-Key`', uniq)
  return { dedupe: 'uniq', options: { dedupe: `u:${uniq}`, conflict: 'exclusive' } }
}

function dedupedBy(dedupe: string | false): Pick<SubmitOptions, 'dedupe' | 'conflict'> {
  return { dedupe, conflict: 'reject' }
}

/** The idempotency key of a post, by its parameter or its header. @throws Problem 400 */
function keyOf(
  { key }: { readonly key?: string | undefined },
  header: string | undefined,
): string | undefined {
  const fromHeader = header === undefined ? undefined : checkedKey('Idempotency-Key', header)
  if (key !== undefined && fromHeader !== undefined && key !== fromHeader)
    throw invalidParameter('key', 'the same as `Idempotency-Key`', key)
  return key ?? fromHeader
}
