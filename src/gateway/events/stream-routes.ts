import { RemoteError, TimeoutError } from '../../errors.ts'
import type { StreamFollowing } from '../../locker/index.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, emptyAnswer } from '../http/answer.ts'
import { type EventStream, eventStream } from '../http/event-stream.ts'
import { textOf } from '../http/json.ts'
import { checkedKey, invalidParameter } from '../http/names.ts'
import { count, type ParameterValues } from '../http/parameters.ts'
import { waitOf, waitParameter, whileWanted } from '../http/waiting.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from '../routes/route.ts'
import { END_ID } from './job-feed.ts'
import { lastEventId } from './routes.ts'

const FOLLOWING = {
  from: count('Number of the first chunk; they count from 0.', 0, 9_999_999_999),
  wait: waitParameter('How long to wait for a stream that nobody produces yet.'),
}

/** Shared streams of the locker, as server-sent events. */
export const STREAM_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/streams/:key',
    scope: 'read',
    effect: 'reads',
    summary: 'The chunks of a shared stream, as server-sent events.',
    query: FOLLOWING,
    headers: {
      Prefer: '`wait=30`: as the parameter `wait`, in seconds.',
      'Last-Event-ID': 'Resumes behind this chunk of the same producer. `end`: the last event was seen.',
    },
    answers: {
      200: 'A message for each chunk; its id is the number of the chunk and, behind a dot, of its producer. `end` is the last event; `error`, with a problem, if the stream was interrupted.',
      204: 'The last event was seen.',
      404: 'Nobody produces the stream.',
      409: 'The stream to resume was interrupted.',
    },
    handle: follow,
  }),
]

async function follow(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof FOLLOWING>,
): Promise<Answer> {
  const key = checkedKey('key', c.req.param('key') ?? '')
  const seen = lastEventId(c)
  if (seen === END_ID) return emptyAnswer()
  const position = seen === undefined ? { from: query.from } : positionBehind(seen)
  const forever = { timeout: Number.POSITIVE_INFINITY }
  const following = deps.locker.follow(key, { ...position, ...forever, wait: waitOf(c, query, deps) })
  const leave = () => void following.return?.()
  try {
    await whileWanted(c, deps.lifecycle, (signal) => {
      if (signal.aborted) leave()
      else signal.addEventListener('abort', leave)
      return following.located()
    })
    return eventStream(c, deps, (stream) => sendChunks(stream, following))
  } catch (error) {
    leave()
    if (error instanceof TimeoutError) throw new Problem(404, 'no such stream')
    throw error
  }
}

/** The id of a chunk: its number, and the fence of its producer. @throws Problem 400 */
function positionBehind(id: string): { from: number; fence: number | undefined } {
  const [, number, fence] = /^(\d{1,15})(?:\.(\d{1,16}))?$/.exec(id) ?? []
  const position = { from: Number(number) + 1, fence: fence === undefined ? undefined : Number(fence) }
  if (Number.isSafeInteger(position.from) && (fence === undefined || isFence(position.fence))) return position
  throw invalidParameter('Last-Event-ID', 'the id of a chunk', id)
}

function isFence(fence: number | undefined): boolean {
  return Number.isSafeInteger(fence) && fence !== 0
}

async function sendChunks(stream: EventStream, following: StreamFollowing<unknown>): Promise<void> {
  void stream.ended.then(() => following.return?.())
  try {
    for await (const { number, fence, value } of following) {
      stream.send({ id: `${number}.${fence}`, data: textOf(value) })
      await stream.drained()
    }
    end(stream, { status: 'completed' })
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error
    end(stream, { status: 'failed', failure: error.remote })
  }
}

function end(stream: EventStream, outcome: object): void {
  stream.send({ event: 'end', id: END_ID, data: JSON.stringify(outcome) })
}
