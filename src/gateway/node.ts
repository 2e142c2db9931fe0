/** A gateway on node:http, Express and Connect. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener, RequestError } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { callHook, reportHookError } from '../kernel/hooks.ts'
import type { Gateway } from './gateway.ts'
import type { Answer } from './http/answer.ts'
import { isClosed } from './http/client.ts'
import { EventAnswer } from './http/event-stream.ts'
import { answerTo, Problem } from './problem.ts'

/** In place of a request that could not be read. */
const UNREADABLE = new Request('http://localhost/')

/** A listener for node:http. Its promise never rejects. */
export type NodeListener = (request: IncomingMessage, response: ServerResponse) => Promise<void>

/**
 * A listener that answers requests of node:http by a gateway. Under Express, mount it before body parsers.
 *
 * @example
 * createServer(toNodeListener(gateway)).listen(5000, '127.0.0.1')
 */
export function toNodeListener(gateway: Gateway): NodeListener {
  const listener = getRequestListener(
    (request, { incoming, outgoing }) => {
      const sendAnswer = (answer: Answer) => {
        // @ts-expect-error A response of HTTP/2 has the same methods.
        send(answer, outgoing)
        return RESPONSE_ALREADY_SENT
      }
      return gateway.fetch(request, { incoming, outgoing, received: request, sendAnswer })
    },
    {
      // The globals of the process are not ours to replace.
      overrideGlobalObjects: false,
      errorHandler: (error) =>
        answerTo(error instanceof RequestError ? new Problem(400, 'invalid request') : error).toResponse(
          UNREADABLE,
        ),
    },
  )
  return async (incoming, outgoing) => {
    try {
      await listener(incoming, outgoing)
    } catch (error) {
      fail(outgoing, error)
    }
  }
}

/** Sends an answer. Never throws: an answer that cannot be sent is reported, and its client is cut. */
function send(answer: Answer, outgoing: ServerResponse): void {
  try {
    if (answer instanceof EventAnswer) begin(answer, outgoing)
    else if (!isClosed(outgoing)) write(answer, outgoing)
  } catch (error) {
    if (answer instanceof EventAnswer) answer.stream.abandon()
    fail(outgoing, error)
  }
}

function begin(answer: EventAnswer, outgoing: ServerResponse): void {
  if (!isClosed(outgoing)) outgoing.writeHead(answer.status, answer.fields()).flushHeaders()
  answer.stream.attachTo(outgoing)
}

function write(answer: Answer, outgoing: ServerResponse): void {
  const { status, body } = answer
  // An answer to HEAD says no length.
  const isSized = outgoing.req.method !== 'HEAD' && status !== 204 && status !== 304
  outgoing.writeHead(status, answer.fields(isSized ? Buffer.byteLength(body) : undefined))
  outgoing.end(body)
}

/** Reports a response that could not be sent, and cuts it: a job in it goes back. */
function fail(outgoing: ServerResponse, error: unknown): void {
  reportHookError('gateway', error)
  callHook(undefined, 'gateway', () => void outgoing.destroy())
}
