import type { Context } from 'hono'
import type { Clock } from '../kernel/time.ts'
import type { Locker } from '../locker/index.ts'
import type { Access } from './access.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { ResolvedGatewayOptions } from './options.ts'
import type { Queues } from './queues.ts'

/** What the routes of a gateway use. */
export interface GatewayDeps {
  readonly options: ResolvedGatewayOptions
  readonly clock: Clock
  readonly queues: Queues
  readonly locker: Locker
  /** Each route is declared through it: see {@link Access.route}. */
  readonly access: Access
  readonly lifecycle: Lifecycle
}

/** Of the listener for node:http, what the gateway uses: the response tells when it has been sent. */
export interface NodeBindings {
  readonly outgoing?: OutgoingResponse | undefined
}

export interface OutgoingResponse {
  readonly writableFinished: boolean
  readonly destroyed: boolean
  once(event: 'finish' | 'close', listener: () => void): unknown
}

/** The environment of the routes. */
export interface GatewayEnv {
  Bindings: NodeBindings
}

export type RouteContext = Context<GatewayEnv>

export type RouteHandler = (context: RouteContext) => Response | Promise<Response>
