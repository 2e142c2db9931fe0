import type { TopicPosition } from '../../bus/index.ts'
import { MAX_KEEP } from '../../bus/internal.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, emptyAnswer } from '../http/answer.ts'
import { eventStream } from '../http/event-stream.ts'
import { readJson, textOf } from '../http/json.ts'
import { nameInPath } from '../http/names.ts'
import { count, flag, type ParameterValues } from '../http/parameters.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

const PUBLISHING = {
  keep: count('How many of the last messages are kept for subscribers that were away.', 0, MAX_KEEP),
  retain: flag('The last message is kept, and sent first to each new subscriber.'),
}

/** Topics of the bus. */
export const BUS_ROUTES: readonly Route[] = [
  route({
    method: 'POST',
    path: '/b/:topic',
    scope: 'submit',
    effect: 'changes',
    summary: 'Publishes a message to the subscribers of a topic.',
    query: PUBLISHING,
    body: { description: 'The message: any JSON, kept byte for byte.', required: true },
    answers: { 204: 'It was published.' },
    handle: publish,
  }),
  route({
    method: 'GET',
    path: '/b/:topic',
    scope: 'read',
    effect: 'reads',
    summary:
      'Subscribes to a topic: its messages as server-sent events, behind the header `Last-Event-ID` if it is given.',
    headers: { 'Last-Event-ID': 'The id of the last event that was received.' },
    answers: { 200: 'A message is an event without a name; `gap` tells how many are missing, or null.' },
    handle: subscribe,
  }),
]

/** Answered when the instance of the topic has the message. */
async function publish(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof PUBLISHING>,
): Promise<Answer> {
  const topic = nameInPath(c, 'topic')
  const json = await readJson(c, deps)
  if (!json) throw new Problem(400, 'message is missing')
  await deps.messaging.publish(topic, json, query)
  return emptyAnswer()
}

/** Ends with its client, or with the gateway. */
function subscribe(c: RouteContext, deps: GatewayDeps): Answer {
  const topic = nameInPath(c, 'topic')
  const from = positionOf(c.req.header('last-event-id'))
  return eventStream(c, deps, async (stream) => {
    const pubsub = deps.messaging.bus.pubsub(topic)
    const id = () => pubsub.position && `${pubsub.position.life}.${pubsub.position.number}`
    pubsub.on('message', (message) => stream.send({ id: id(), data: textOf(message) }))
    pubsub.on('gap', (missed) =>
      stream.send({ id: id(), event: 'gap', data: JSON.stringify(missed ?? null) }),
    )
    try {
      await pubsub.subscribe({ from })
      await stream.ended
    } finally {
      await pubsub.unsubscribe()
    }
  })
}

/** The position that an id of an event tells; undefined if there is none. @throws Problem 400 */
function positionOf(id: string | undefined): TopicPosition | undefined {
  if (id === undefined || id === '') return undefined
  const [, life, digits] = /^([\w-]{1,64})\.(\d{1,15})$/.exec(id) ?? []
  if (life === undefined)
    throw new Problem(400, 'invalid parameter', { detail: 'Last-Event-ID is no id of this stream' })
  return { life, number: Number(digits) }
}
