import { z } from 'zod'
import type { JsonText } from '../../kernel/codec/json-text.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, jsonAnswer } from '../http/answer.ts'
import { eventStream } from '../http/event-stream.ts'
import { elementTexts, readJson, textOf } from '../http/json.ts'
import { nameInPath } from '../http/names.ts'
import { count, duration, flag, type ParameterValues } from '../http/parameters.ts'
import { waitOf, waitParameter, whileWanted } from '../http/waiting.ts'
import {
  callService,
  MAX_ARGUMENTS,
  MAX_TRIES,
  type ServiceCall,
  streamService,
} from '../messaging/service-call.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

const CALLING = {
  timeout: duration('How long one try may take.', { min: 1, max: Number.MAX_SAFE_INTEGER }),
  tries: count(
    'How often the call is made, at another process, after a try that may be made again.',
    1,
    MAX_TRIES,
  ),
  wait: waitParameter('How long to wait for a first process that serves the service.'),
  stream: flag('The reply is streamed: its chunks as server-sent events, then the event `end`.'),
}

/** A process that serves a service is called. */
export const SERVICE_ROUTES: readonly Route[] = [
  route({
    method: 'POST',
    path: '/s/:service/:event',
    scope: 'submit',
    effect: 'changes',
    summary: 'Calls an event of a service, at the least busy process that serves it.',
    query: CALLING,
    body: {
      description: 'An array of the arguments; none if it is absent.',
      schema: z.array(z.json()).max(MAX_ARGUMENTS),
    },
    answers: {
      200: 'What the handler returned.',
      404: 'No process serves it, `no service`, or the one that was called has no such event, `unknown event`.',
      429: 'All processes are full: `busy`.',
      500: 'The handler has failed: `remote`, with its failure.',
      502: 'The process was lost while it had the call: `process lost`.',
      504: 'It did not answer in time: `timeout`.',
    },
    handle: call,
  }),
]

/** The body is an array of the arguments. The answer is what the handler returns. A client that goes aborts the call. */
async function call(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof CALLING>,
): Promise<Answer> {
  const names = { service: nameInPath(c, 'service'), event: nameInPath(c, 'event') }
  const args = argumentsOf(await readJson(c, deps))
  const serviceCall = { ...names, ...query, args, wait: waitOf(c, query, deps) }
  if (query.stream) return streamReply(c, deps, serviceCall)
  const text = await whileWanted(c, deps.lifecycle, (signal) => callService(deps, serviceCall, signal))
  return jsonAnswer(200, text)
}

/** A call that fails is told as the event `error`. A client that goes ends it. */
function streamReply(c: RouteContext, deps: GatewayDeps, serviceCall: ServiceCall): Answer {
  return eventStream(c, deps, async (stream) => {
    const chunks = streamService(deps, serviceCall, stream.signal)
    void stream.ended.then(() => chunks.return())
    for await (const chunk of chunks) {
      if (stream.isOver) return
      stream.send({ data: textOf(chunk) })
      await stream.drained()
    }
    stream.send({ event: 'end', data: 'null' })
  })
}

/** @throws Problem 400 */
function argumentsOf(body: JsonText | undefined): string[] {
  const texts = elementTexts(body?.text ?? '[]')
  if (texts && texts.length <= MAX_ARGUMENTS) return texts
  throw new Problem(400, 'invalid arguments', {
    detail: `Expected an array of at most ${MAX_ARGUMENTS} arguments`,
    ran: 'no',
  })
}
