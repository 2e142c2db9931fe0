import type { Context } from 'hono'

/** Of the listener for node:http, what the gateway uses: the response tells when it has been sent. */
export interface NodeBindings {
  readonly outgoing?: OutgoingResponse | undefined
}

export interface OutgoingResponse {
  readonly writableFinished: boolean
  readonly destroyed: boolean
  readonly socket?: { readonly readableEnded: boolean } | null
  once(event: 'finish' | 'close', listener: () => void): unknown
}

/** The environment of the routes. */
export interface GatewayEnv {
  Bindings: NodeBindings
}

export type RouteContext = Context<GatewayEnv>

export type RouteHandler = (context: RouteContext) => Response | Promise<Response>
