import { z } from 'zod'
import { JsonText } from '../../../kernel/codec/json-text.ts'
import { MAX_HELD_LEASE, MAX_LOG_LINES, MIN_HELD_LEASE } from '../../../kernel/keys.ts'
import { DEFAULT_COMMAND } from '../../../kernel/names.ts'
import type { RedisQueue, TakenJob } from '../../../queue/index.ts'
import { WorkingClient } from '../../clients/working-client.ts'
import { checkProgress } from '../../http/json.ts'
import { jobOf, type LeasedJob, leaseLost, renewalText } from '../../http/lease.ts'
import { errorOf } from '../../http/reason.ts'
import { JobSubscription, release, takenJobText } from '../job-subscription.ts'
import { duration, json, type MessageType, message, name } from '../message.ts'
import type { SocketSession } from '../socket-session.ts'

/** Lease of a job if its taker names none, ms: that of a queue. */
const DEFAULT_LEASE = 30_000

/** Jobs that one subscription is given at once, at most. */
const MAX_CONCURRENCY = 100

const TAKING = {
  queue: name,
  command: name.default(DEFAULT_COMMAND),
  lease: duration(MIN_HELD_LEASE, MAX_HELD_LEASE).default(DEFAULT_LEASE),
}
const LEASED = { queue: name, lease: z.string().max(8_192) }
const log = z.union([z.string(), z.array(z.string()).max(MAX_LOG_LINES)])

/** A worker: takes jobs, renews their leases and finishes them. The leases are those of the routes. */
export const WORK_MESSAGES: readonly MessageType[] = [
  message({
    type: 'take',
    scope: 'work',
    summary: 'Takes one job: `{ id, attempt, lease, job }`; null if there is none at the end of the wait.',
    members: { ...TAKING, wait: duration(0, Number.MAX_SAFE_INTEGER).default(0) },
    async handle(session, { values: { queue: queueName, command, lease, wait } }) {
      const { queues, options } = session.deps
      const { signal } = session
      const take = (queue: RedisQueue) =>
        queue.take(command, { lease, wait: Math.min(wait, options.maxWait), signal })
      const client = new WorkingClient(session.deps, queueName, undefined, session.caller)
      const job = await client.waits(command, wait, () =>
        wait > 0 ? queues.wait(queueName, take) : queues.use(queueName, take),
      )
      if (!job) return undefined
      client.taken([job], lease)
      return {
        text: takenJobText(job, lease),
        settled: (isSent) => isSent || release(session.deps, queueName, job),
      }
    },
  }),
  message({
    type: 'work',
    scope: 'work',
    summary:
      'Subscribes to jobs: each is sent when one of `concurrency` slots is free, until it is finished, failed or given back.',
    members: { ...TAKING, concurrency: z.int().min(1).max(MAX_CONCURRENCY).default(1) },
    handle(session, { id, values }) {
      const worker = new JobSubscription(session, id, values)
      session.subscribe(id, worker)
      return { text: 'null', settled: () => worker.start() }
    },
  }),
  message({
    type: 'finish',
    scope: 'work',
    summary: 'Ends a job with a result.',
    members: { ...LEASED, result: json.optional() },
    handle: (session, { values, texts }) =>
      end(session, values, (job) => {
        const result = texts.get('result')
        return job.complete(result === undefined ? undefined : JsonText.parse(result))
      }),
  }),
  message({
    type: 'fail',
    scope: 'work',
    summary:
      'Says that a job has failed, and why: it is tried again, or has failed for good, as it has with `retry: false`.',
    members: { ...LEASED, reason: json.optional(), retry: z.boolean().default(true) },
    handle: (session, { values, texts }) =>
      end(session, values, (job) => {
        const reason = texts.get('reason')
        const error = errorOf(reason === undefined ? undefined : JsonText.parse(reason))
        return job.fail(error, { retry: values.retry })
      }),
  }),
  message({
    type: 'again',
    scope: 'work',
    summary: 'Gives a job back: the attempt does not count.',
    members: LEASED,
    handle: (session, { values }) => end(session, values, (job) => job.release()),
  }),
  message({
    type: 'renew',
    scope: 'work',
    summary: 'Renews a lease, for `for` or as long as before: `{ left, cancelled }`.',
    members: { ...LEASED, for: duration(MIN_HELD_LEASE, MAX_HELD_LEASE).optional() },
    handle: (session, { values }) =>
      leased(session, values, async ({ job, lease }) => {
        const ms = values.for ?? lease
        const client = new WorkingClient(session.deps, values.queue, undefined)
        const renewal = await client.renew(job, ms)
        if (renewal !== 'held') freeSlot(session, job)
        return renewalText(job, ms, renewal)
      }),
  }),
  message({
    type: 'progress',
    scope: 'work',
    summary: 'Shows progress of a job.',
    members: { ...LEASED, progress: json },
    handle: (session, { values, texts }) =>
      leased(session, values, async ({ job }) => {
        const progress = texts.get('progress')
        checkProgress(progress)
        await job.progress(JsonText.parse(progress ?? 'null'))
        return undefined
      }),
  }),
  message({
    type: 'log',
    scope: 'work',
    summary: 'Appends a line, or several, to the log of a job.',
    members: { ...LEASED, log },
    handle: (session, { values }) =>
      leased(session, values, async ({ job }) => {
        await job.log(...[values.log].flat())
        return undefined
      }),
  }),
]

function leased<T>(
  { deps }: SocketSession,
  { queue: name, lease }: { queue: string; lease: string },
  run: (leased: LeasedJob) => Promise<T>,
): Promise<T> {
  return deps.queues.use(name, (queue) => run(jobOf(lease, queue)))
}

/** Ends an attempt. @throws Problem 409 if the job is not held any more. */
function end(
  session: SocketSession,
  values: { queue: string; lease: string },
  run: (job: TakenJob) => Promise<boolean>,
): Promise<undefined> {
  return leased(session, values, async ({ job }) => {
    const isHeld = await run(job)
    new WorkingClient(session.deps, values.queue, undefined).ended(job)
    freeSlot(session, job)
    if (!isHeld) throw leaseLost(job.id)
    return undefined
  })
}

function freeSlot(session: SocketSession, { token }: TakenJob): void {
  for (const worker of session.subscriptions(JobSubscription)) worker.free(token)
}
