import type { Context } from 'hono'

/** Of the listener for node:http, what the gateway uses: whether the client is there, and whether the response was sent. */
export interface NodeBindings {
  readonly incoming?: { readonly socket: ClientSocket } | undefined
  readonly outgoing?: OutgoingResponse | undefined
  /** The listener writes the events of a stream: the answer has no body. */
  readonly writesStreams?: true | undefined
}

export interface OutgoingResponse {
  readonly writableFinished: boolean
  readonly destroyed: boolean
  once(event: 'finish' | 'close', listener: () => void): unknown
}

/** The connection of a client. Also a response that waits for others on it, and has no socket yet, ends with it. */
export interface ClientSocket {
  readonly destroyed: boolean
  readonly readableEnded: boolean
  once(event: 'close', listener: () => void): unknown
  removeListener(event: 'close', listener: () => void): unknown
}

/** The environment of the routes. */
export interface GatewayEnv {
  Bindings: NodeBindings
}

export type RouteContext = Context<GatewayEnv>
