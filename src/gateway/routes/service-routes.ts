import { z } from 'zod'
import type { JsonText } from '../../kernel/codec/json-text.ts'
import { SERVICES_DEFAULTS } from '../../services/index.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { readJson, textOf } from '../http/json.ts'
import { nameInPath } from '../http/names.ts'
import { count, duration, type ParameterValues } from '../http/parameters.ts'
import { jsonResponse } from '../http/responses.ts'
import { waitOf, waitParameter, whileWanted } from '../http/waiting.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

/** Arguments of one call: each is one of a function call, and an engine allows few enough for an attack to reach its end. */
const MAX_ARGUMENTS = 100

const MAX_TRIES = 100

/** A call may take so long, ms, however short the longest wait of a request is. */
const MIN_CALL = 1_000

const CALLING = {
  timeout: duration('How long one try may take.', { min: 1, max: Number.MAX_SAFE_INTEGER }),
  tries: count(
    'How often the call is made, at another process, after a try that may be made again.',
    1,
    MAX_TRIES,
  ),
  wait: waitParameter('How long to wait for a first process that serves the service.'),
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
    handle: callService,
  }),
]

/** The body is an array of the arguments. The answer is what the handler returns. A client that goes aborts the call. */
async function callService(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof CALLING>,
): Promise<Response> {
  const { options, lifecycle, messaging } = deps
  const service = nameInPath(c, 'service')
  const event = nameInPath(c, 'event')
  const { timeout: asked = SERVICES_DEFAULTS.timeout, tries = 1 } = query
  const within = Math.max(options.maxWait, MIN_CALL)
  const timeout = Math.min(asked, within)
  const wait = waitOf(c, query, deps)
  const args = argumentsOf(await readJson(c.req.raw, deps))
  const result = await whileWanted(c.req.raw, lifecycle, (signal) => {
    const remote = messaging.services.require(service, { wait }).with({ timeout, within, signal })
    return tries === 1 ? remote.emit(event, ...args) : remote.pemit(tries, event, ...args)
  })
  return jsonResponse(200, replyText(result))
}

/** @throws Problem 400 */
function argumentsOf(body: JsonText | undefined): unknown[] {
  const value = body ? body.value : []
  if (Array.isArray(value) && value.length <= MAX_ARGUMENTS) return value
  throw new Problem(400, 'invalid arguments', {
    detail: `Expected an array of at most ${MAX_ARGUMENTS} arguments`,
    ran: 'no',
  })
}

/** @throws Problem 500 if a codec of the user has read what JSON cannot represent. */
function replyText(result: unknown): string {
  try {
    return textOf(result)
  } catch (cause) {
    throw new Problem(500, 'unreadable value', { ran: 'yes', cause })
  }
}
