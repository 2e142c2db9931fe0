/** A gateway on node:http, Express and Connect. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { trustLength } from './body.ts'
import type { Gateway } from './gateway.ts'
import type { Answer } from './http/answer.ts'
import { EventAnswer } from './http/event-stream.ts'
import { Problem } from './problem.ts'

/** In place of a request that could not be read. */
const UNREADABLE = new Request('http://localhost/')

/** A listener for node:http. */
export type NodeListener = (request: IncomingMessage, response: ServerResponse) => Promise<void>

/**
 * A listener that answers requests of node:http by a gateway. Under Express, mount it before parsers of bodies.
 *
 * @example
 * createServer(toNodeListener(gateway)).listen(5000, '127.0.0.1')
 */
export function toNodeListener(gateway: Gateway): NodeListener {
  return getRequestListener(
    (request, { incoming, outgoing }) => {
      trustLength(request)
      const sendAnswer = (answer: Answer) => {
        // @ts-expect-error A response of HTTP/2 has the same methods.
        send(answer, outgoing)
        return RESPONSE_ALREADY_SENT
      }
      return gateway.fetch(request, { incoming, outgoing, sendAnswer })
    },
    {
      // The globals of the process are not ours to replace.
      overrideGlobalObjects: false,
      errorHandler: () => new Problem(400, 'invalid request').toAnswer().toResponse(UNREADABLE),
    },
  )
}

function send(answer: Answer, outgoing: ServerResponse): void {
  const { status, headers, body } = answer
  if (answer instanceof EventAnswer) {
    if (!outgoing.destroyed) outgoing.writeHead(status, headers).flushHeaders()
    answer.stream.attachTo(outgoing)
  } else if (!outgoing.destroyed) {
    // An answer to HEAD says no length.
    const isSized = outgoing.req.method !== 'HEAD' && status !== 204 && status !== 304
    outgoing.writeHead(status, isSized ? { ...headers, 'content-length': Buffer.byteLength(body) } : headers)
    outgoing.end(body)
  }
}
