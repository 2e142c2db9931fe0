import { z } from 'zod'
import { JsonText } from '../../kernel/codec/json-text.ts'
import { MAX_LOG_LINES } from '../../kernel/keys.ts'
import { DEFAULT_COMMAND } from '../../kernel/names.ts'
import type { RedisQueue, TakenJob } from '../../queue/index.ts'
import { WorkingClient } from '../clients/working-client.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, emptyAnswer, jsonAnswer } from '../http/answer.ts'
import { checkProgress, readJson, readMembers } from '../http/json.ts'
import { leasedJob, leaseLost, leaseParameter, renewalText } from '../http/lease.ts'
import { queueName } from '../http/names.ts'
import { command, flag, type ParameterValues } from '../http/parameters.ts'
import { errorOf } from '../http/reason.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'
import { readJob } from './submit-routes.ts'

const FINISHING = {
  command,
  failed: flag('The job failed. The body is the reason.'),
  retry: flag('With `failed`: `0` rules out further attempts.'),
  again: flag('The job goes back, and the attempt does not count.'),
}

const RENEWING = { lease: leaseParameter('Duration of the lease from now on. As before if it is absent.') }

/** What a renewal may carry. */
const RENEWAL_BODY = z.strictObject({
  progress: z.json().optional(),
  log: z.union([z.string(), z.array(z.string()).max(MAX_LOG_LINES)]).optional(),
})

const LEASE = { 'X-Lease': 'The lease of the job, whole, as it came with the job.' }
const LOST = 'The lease is over: `lease lost`.'

/** Jobs that were taken are finished, failed, given back and renewed, by the header X-Lease. */
export const FINISH_ROUTES: readonly Route[] = [
  route({
    method: 'PUT',
    path: '/q/:queue',
    scope: 'work',
    effect: 'changes',
    summary: 'Finishes a job that was taken. Without `X-Lease`, puts a job back that was taken for good.',
    query: FINISHING,
    headers: LEASE,
    body: { description: 'The result of the job: any JSON, kept byte for byte.' },
    answers: { 201: 'The job was put back.', 204: 'The job has ended, or is tried again.', 409: LOST },
    handle: putJob,
  }),
  route({
    method: 'PATCH',
    path: '/q/:queue',
    scope: 'work',
    effect: 'changes',
    summary: 'Renews the lease of a job, and notes progress and lines of its log.',
    query: RENEWING,
    headers: LEASE,
    body: { description: 'Progress: any JSON. Log: a line, or several.', schema: RENEWAL_BODY },
    answers: { 200: '`{ left, cancelled }`: what is left of the lease, in seconds.', 409: LOST },
    handle: renewJob,
  }),
]

/** With a lease: the result of the job, or why it failed. Without one: a job that was taken for good is put back. */
function putJob(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof FINISHING>,
): Promise<Answer> {
  const name = queueName(c)
  const { failed = false, again = false, retry } = query
  if (failed && again)
    throw new Problem(400, 'invalid parameter', { detail: 'Expected `failed` or `again`, got both' })
  if (retry !== undefined && !failed)
    throw new Problem(400, 'invalid parameter', { detail: 'Expected `retry` beside `failed`' })
  const client = WorkingClient.of(c, deps, name)
  return deps.queues.use(name, async (queue) => {
    const leased = leasedJob(c, queue)
    if (!leased) return await putBack(c, deps, client, queue, query)
    const { job } = leased
    const reply = await end(c, deps, job, { failed, again, retry: retry ?? true })
    // A repetition counts no more.
    client.ended(job, reply === 'accepted' ? { failed, returned: again } : {})
    if (reply === 'lost') throw leaseLost(job.id)
    return emptyAnswer()
  })
}

/** Ends an attempt. Returns what became of that. */
async function end(
  c: RouteContext,
  deps: GatewayDeps,
  job: TakenJob,
  { failed, again, retry }: { failed: boolean; again: boolean; retry: boolean },
): ReturnType<TakenJob['endWith']> {
  if (again) return job.giveBack()
  const body = await readJson(c, deps)
  if (failed) return job.endWith(errorOf(body), retry)
  return (await job.complete(body)) ? 'accepted' : 'lost'
}

/** presque's: the body is a job again, and counts as failed. */
async function putBack(
  c: RouteContext,
  deps: GatewayDeps,
  client: WorkingClient,
  queue: RedisQueue,
  { command = DEFAULT_COMMAND, failed, again }: ParameterValues<typeof FINISHING>,
): Promise<Answer> {
  if (failed || again) throw new Problem(400, 'lease is missing')
  const job = await readJob(c, deps)
  const [{ id, disposition }] = await Promise.all([
    queue.enqueue(command, job, { dedupe: false }),
    // The counter is not worth a second job, which a client that repeats the request would make.
    queue.countFailure().catch(() => {}),
  ])
  client.failed()
  return jsonAnswer(201, JSON.stringify({ id, disposition }))
}

/** Renews the lease, and notes progress and lines of the log. */
function renewJob(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof RENEWING>,
): Promise<Answer> {
  const name = queueName(c)
  const client = WorkingClient.of(c, deps, name)
  return deps.queues.use(name, async (queue) => {
    const leased = leasedJob(c, queue)
    if (!leased) throw new Problem(400, 'lease is missing')
    const { job } = leased
    const lease = query.lease ?? leased.lease
    const { values, texts } = await readMembers(c, deps, RENEWAL_BODY)
    const progress = texts.get('progress')
    checkProgress(progress)
    const renewal = await client.renew(job, lease)
    const answer = renewalText(job, lease, renewal)
    if (renewal === 'held' && progress !== undefined) await job.progress(JsonText.parse(progress))
    if (renewal === 'held') await job.log(...[values.log ?? []].flat())
    return jsonAnswer(200, answer)
  })
}
