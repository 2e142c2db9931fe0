/** A gateway on node:http, Express and Connect. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { trustLength } from './body.ts'
import type { Gateway } from './gateway.ts'
import { type EventStream, streamOf } from './http/event-stream.ts'
import { knownText } from './http/responses.ts'
import { Problem } from './problem.ts'

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
    async (request, bindings) => {
      trustLength(request)
      const response = await gateway.fetch(request, { ...bindings, writesStreams: true })
      // @ts-expect-error A response of HTTP/2 has the same methods.
      return send(response, bindings.outgoing)
    },
    {
      // The globals of the process are not ours to replace.
      overrideGlobalObjects: false,
      errorHandler: () => new Problem(400, 'invalid request').toResponse(),
    },
  )
}

/** Sends an answer at once: the adapter waits a turn of the event loop for the end of every body. */
async function send(response: Response, outgoing: ServerResponse): Promise<Response> {
  const stream = streamOf(response)
  if (stream) return sendEvents(response, stream, outgoing)
  // A text is sent in one piece with the head.
  const body = knownText(response) ?? Buffer.from(await response.arrayBuffer())
  if (outgoing.destroyed) return RESPONSE_ALREADY_SENT
  // The answer to HEAD has lost its body: how long that would be is not known any more.
  outgoing.writeHead(response.status, {
    ...Object.fromEntries(response.headers),
    ...(outgoing.req.method === 'HEAD' ? {} : lengthOf(response, body)),
  })
  outgoing.end(body)
  return RESPONSE_ALREADY_SENT
}

function sendEvents(response: Response, stream: EventStream, outgoing: ServerResponse): Response {
  if (!outgoing.destroyed) {
    outgoing.writeHead(response.status, Object.fromEntries(response.headers))
    outgoing.flushHeaders()
  }
  stream.attachTo(outgoing)
  return RESPONSE_ALREADY_SENT
}

/** An answer that may have a body says how long it is. */
function lengthOf({ status }: Response, body: string | Buffer): { 'content-length'?: number } {
  return status === 204 || status === 304 ? {} : { 'content-length': Buffer.byteLength(body) }
}
