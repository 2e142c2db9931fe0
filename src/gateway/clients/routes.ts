import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, emptyAnswer, jsonAnswer } from '../http/answer.ts'
import { queueName } from '../http/names.ts'
import { name, type ParameterValues } from '../http/parameters.ts'
import { RECENT } from '../overview/recent-answers.ts'
import { namedWorkers, workerViews } from '../overview/worker-views.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from '../routes/route.ts'
import { workerId } from './working-client.ts'

const LOOKING = {
  queue_name: name('Only the workers of this queue, and what the queue has done.'),
  worker_id: name('Only this worker, and what it has done.'),
}

const HEADERS = { 'X-presque-workerid': 'The id that the worker gives itself.' }

/** Workers, as in presque: those that name themselves, and the processes that work through the library. */
export const WORKER_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: ['/w/', '/w'],
    scope: 'read',
    effect: 'reads',
    summary: 'The ids of the workers; with a parameter, what a queue or a worker has done.',
    query: LOOKING,
    answers: {
      200: 'An array of ids. With `queue_name`: `{ queue_name, workers_list, processed, failed }`. With `worker_id`: `{ worker_id, processed, failed, started_at }`.',
      404: 'There is no such worker.',
    },
    handle: getWorkers,
  }),
  route({
    method: 'POST',
    path: '/w/:queue',
    scope: 'work',
    effect: 'changes',
    summary: 'Signs a worker on. It is gone when it was silent for 60 seconds.',
    headers: HEADERS,
    answers: { 201: 'It is known. If it was known, its counts stay.', 429: 'There are too many workers.' },
    handle(c, { clients, overviewSources, locker }) {
      if (!clients.workers.seen(queueName(c), requiredId(c))) throw new Problem(429, 'too many workers')
      overviewSources.answers.forget()
      // A gateway that has no connection yet is not heard by the others.
      locker.ready().catch(() => {})
      return emptyAnswer(201)
    },
  }),
  route({
    method: 'DELETE',
    path: '/w/:queue',
    scope: 'work',
    effect: 'changes',
    summary: 'Signs a worker off.',
    headers: HEADERS,
    answers: { 204: 'It is not known any more.' },
    handle(c, { clients, overviewSources }) {
      clients.workers.remove(queueName(c), requiredId(c))
      overviewSources.answers.forget()
      return emptyAnswer()
    },
  }),
]

function requiredId(c: RouteContext): string {
  const id = workerId(c)
  if (id !== undefined) return id
  throw new Problem(400, 'worker_id is missing', { detail: 'Expected the header X-presque-workerid' })
}

/** A worker of any kind. The counts of those that work through the library are not known by worker. */
interface ListedWorker {
  readonly id: string
  readonly queue: string
  readonly processed: number | null
  readonly failed: number | null
  /** Seconds since 1970. */
  readonly startedAt: number
}

async function getWorkers(
  _c: RouteContext,
  deps: GatewayDeps,
  { queue_name: queue, worker_id: id }: ParameterValues<typeof LOOKING>,
): Promise<Answer> {
  if (queue !== undefined && id !== undefined)
    throw new Problem(400, 'invalid parameter', {
      detail: 'Expected `queue_name` or `worker_id`, got both',
    })
  const workers = await listedWorkers(deps)
  if (id !== undefined) return jsonAnswer(200, JSON.stringify(workerOf(workers, id)))
  const ids = [...new Set(workers.flatMap((each) => ((queue ?? each.queue) === each.queue ? [each.id] : [])))]
  if (queue === undefined) return jsonAnswer(200, JSON.stringify(ids))
  const totals = await deps.queues.use(queue, (opened) => opened.totals())
  const answer = {
    queue_name: queue,
    workers_list: ids,
    processed: Math.max(0, totals.taken - totals.returned),
    failed: totals.failed,
  }
  return jsonAnswer(200, JSON.stringify(answer))
}

async function listedWorkers({ overviewSources }: GatewayDeps): Promise<ListedWorker[]> {
  const { prefix } = overviewSources
  const at = Date.now()
  const answers = await overviewSources.answers.notOlderThan(RECENT)
  const named = namedWorkers(answers, prefix).map(
    ({ id, queue: its, taken, returned, failed, age }): ListedWorker => ({
      ...{ id, queue: its, failed },
      // What a gateway has counted as taken may be forgotten, and that it went back not.
      processed: Math.max(0, taken - returned),
      startedAt: Math.floor((at - age) / 1000),
    }),
  )
  const processes = workerViews(answers, prefix, at).filter(({ pid }) => pid !== null)
  const others = processes.map(
    ({ id, queue: its, since }): ListedWorker => ({
      ...{ id, queue: its, processed: null, failed: null },
      startedAt: Math.floor(since),
    }),
  )
  return [...named, ...others]
}

/** What a worker has done, for all of its queues. @throws Problem 404 */
function workerOf(workers: readonly ListedWorker[], id: string): object {
  const its = workers.filter((worker) => worker.id === id)
  if (its.length === 0) throw new Problem(404, 'no such worker')
  const sum = (of: 'processed' | 'failed') =>
    its.some((worker) => worker[of] === null)
      ? null
      : its.reduce((total, worker) => total + (worker[of] ?? 0), 0)
  const startedAt = Math.min(...its.map((worker) => worker.startedAt))
  return { worker_id: id, processed: sum('processed'), failed: sum('failed'), started_at: startedAt }
}
