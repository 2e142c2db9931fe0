import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, emptyAnswer } from '../http/answer.ts'
import { type EventProducer, eventStream } from '../http/event-stream.ts'
import { queueName } from '../http/names.ts'
import { name, type ParameterValues } from '../http/parameters.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from '../routes/route.ts'
import { type Feed, gapFrame } from './feed.ts'
import type { FeedSource } from './feeds.ts'
import { END_ID, isFinished, jobFeed, jobStateText } from './job-feed.ts'
import { allQueuesFeed, queueFeed } from './queue-feeds.ts'

const QUEUE = { queue: name('One queue; all that were used lately if it is absent.') }

/** What happens to jobs, as server-sent events. */
export const EVENT_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/events',
    scope: 'read',
    effect: 'reads',
    summary: 'What happens to the jobs of a queue, or of all queues, as server-sent events.',
    query: QUEUE,
    headers: {
      'Last-Event-ID': 'Goes on behind this event. What is not kept any more is told as the event `gap`.',
    },
    answers: {
      200: 'Events `submitted`, `active`, `completed`, `retrying`, `failed`, `stalled`, `lost`; `gap` if some were missed.',
    },
    handle: sendEvents,
  }),
  route({
    method: 'GET',
    path: '/j/:queue/:id/events',
    scope: 'read',
    effect: 'reads',
    summary: 'The states, the progress and the log of a job, as server-sent events, until it has finished.',
    headers: { 'Last-Event-ID': '`end`: the last event was seen.' },
    answers: {
      200: 'Events `state` (the job, at first as it is), `progress`, `log` (`{ lines, skipped }`: new lines of its log), and `end` (the job with its outcome), which is the last.',
      204: 'The last event was seen.',
      404: 'There is no such job.',
    },
    handle: sendJob,
  }),
]

/** The id of the last event that a client has seen before it reconnected. */
export function lastEventId({ req }: RouteContext): string | undefined {
  return req.header('last-event-id')
}

async function sendEvents(
  c: RouteContext,
  deps: GatewayDeps,
  { queue }: ParameterValues<typeof QUEUE>,
): Promise<Answer> {
  const { watches, queues, clock } = deps
  const shared: SharedFeed =
    queue === undefined
      ? { name: 'all', source: allQueuesFeed(watches, queues, clock) }
      : { name: `queue ${queue}`, source: queueFeed(watches, queue), queue }
  return sendFeed(c, deps, shared, (feed) => {
    const seen = lastEventId(c)
    const after = seen === undefined ? feed.last : feed.numberOf(seen)
    return async (stream) => {
      if (after === undefined) stream.send(gapFrame())
      await feed.send(stream, after ?? feed.last)
    }
  })
}

interface SharedFeed {
  readonly name: string
  readonly source: FeedSource
  /** The queue that is watched for it. It counts in the share of each client. */
  readonly queue?: string
}

/** Answers with the events of a feed, which is held until the stream is over. */
async function sendFeed(
  c: RouteContext,
  deps: GatewayDeps,
  { name, source, queue }: SharedFeed,
  send: (feed: Feed) => EventProducer | Promise<EventProducer>,
): Promise<Answer> {
  const { feeds, watches, access } = deps
  const charge = queue === undefined ? undefined : () => watches.charge(queue, access.caller(c))
  const { feed, release } = await feeds.open(name, source, charge)
  try {
    const sending = await send(feed)
    return eventStream(c, deps, (stream) => sending(stream).finally(release))
  } catch (error) {
    release()
    throw error
  }
}

async function sendJob(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const name = queueName(c)
  const id = c.req.param('id') ?? ''
  if (lastEventId(c) === END_ID) return emptyAnswer()
  return deps.queues.use(name, async (queue) => {
    const job = await queue.job(id)
    if (!job) throw new Problem(404, 'no such job')
    // The name of a queue has no control character.
    const feedName = `job ${name}\n${id} ${job.generation}`
    const shared = { name: feedName, source: jobFeed(deps, name, job), queue: name }
    return sendFeed(c, deps, shared, async (feed) => {
      const { last } = feed
      const status = await queue.status(id)
      const data = jobStateText(name, id, status)
      return async (stream) => {
        if (!status || isFinished(status)) return stream.send({ event: 'end', id: END_ID, data })
        stream.send({ event: 'state', data })
        await feed.send(stream, last)
      }
    })
  })
}
