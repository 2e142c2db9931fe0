import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { readJson } from '../http/json.ts'
import { nameInPath } from '../http/names.ts'
import { emptyResponse } from '../http/responses.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

/** Topics of the bus. */
export const BUS_ROUTES: readonly Route[] = [
  route({
    method: 'POST',
    path: '/b/:topic',
    scope: 'submit',
    effect: 'changes',
    summary: 'Publishes a message to the subscribers of a topic.',
    body: { description: 'The message: any JSON, kept byte for byte.', required: true },
    answers: { 204: 'It was published.' },
    handle: publish,
  }),
]

/** Answered when the instance of the topic has the message. */
async function publish(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const topic = nameInPath(c, 'topic')
  const json = await readJson(c.req.raw, deps)
  if (!json) throw new Problem(400, 'message is missing')
  await deps.messaging.publish(topic, json)
  return emptyResponse()
}
