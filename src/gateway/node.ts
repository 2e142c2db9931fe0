/** A gateway on node:http, Express and Connect. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import type { Gateway } from './gateway.ts'
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
  return getRequestListener((request, bindings) => gateway.fetch(request, bindings), {
    // The globals of the process are not ours to replace.
    overrideGlobalObjects: false,
    errorHandler: () => new Problem(400, 'invalid request').toResponse(),
  })
}
