import { Hono } from 'hono'
import { checkTimeout } from '../kernel/options.ts'
import { connectionFor } from '../kernel/redis/connection.ts'
import { createDeps } from './create-deps.ts'
import { DASHBOARD_ROUTES } from './dashboard/routes.ts'
import type { GatewayDeps } from './deps.ts'
import { addRoute } from './dispatch.ts'
import type { Exchange, GatewayEnv, NodeBindings } from './env.ts'
import { type GatewayOptions, resolveGatewayOptions } from './options.ts'
import { answerTo, Problem } from './problem.ts'
import { ROUTES } from './routes/index.ts'
import { keepSockets, Sockets, socketsOf } from './ws/sockets.ts'

/** A gateway. `fetch` needs no `this`. */
export interface Gateway extends AsyncDisposable {
  /** Answers a request. Never rejects. `bindings`: the data that the adapter for node:http passes beside it. */
  readonly fetch: (request: Request, bindings?: object | null) => Promise<Response>
  /** Resolves when Redis answers. @throws UnavailableError, ClosedError */
  ready(): Promise<void>
  /**
   * Closes the gateway: it is not ready from now on. It serves all requests for `drain` ms (0 by default), so that balancers
   * notice; then until no request is left, at most `grace` ms. Then waiting requests are answered, and its queues are closed.
   * After the drain, event streams are ended, and push workers take no more jobs; after `grace` ms they abort their requests and
   * give the jobs back. Never rejects. @throws TypeError
   */
  close(options?: { drain?: number | undefined; grace?: number | undefined }): Promise<void>
}

/** How long `close` lets requests wait by default, ms. */
const DEFAULT_GRACE = 5_000

/** How long requests have to be answered once they need not wait any more, ms. */
const END_WITHIN = 2_000

/**
 * Creates an HTTP gateway: a Fetch handler through which programs in any language submit, take and finish jobs.
 *
 * @example
 * import { createServer } from 'node:http'
 * import { createGateway } from 'soloflight/gateway'
 * import { toNodeListener } from 'soloflight/gateway/node'
 *
 * const gateway = createGateway({ redis: 'redis://localhost:6379' })
 * createServer(toNodeListener(gateway)).listen(5000, '127.0.0.1')
 * @throws TypeError if an option is invalid.
 */
export function createGateway(options: GatewayOptions = {}): Gateway {
  return new HttpGateway(options)
}

class HttpGateway implements Gateway {
  readonly #deps: GatewayDeps
  readonly #app: Hono<GatewayEnv>
  readonly #release: () => Promise<void>
  #closing: Promise<void> | undefined

  constructor(given: GatewayOptions) {
    const options = resolveGatewayOptions(given)
    const sockets = () => socketsOf(this).size
    const link = connectionFor(given, 'Gateway')
    this.#release = link?.release ?? (async () => {})
    try {
      this.#deps = createDeps(given, options, link?.connection, sockets)
      this.#app = createApp(this.#deps)
      keepSockets(this, new Sockets(this.#deps))
    } catch (error) {
      void this.#release()
      throw error
    }
  }

  readonly fetch = (request: Request, bindings?: NodeBindings | null): Promise<Response> =>
    this.#deps.lifecycle.track(() => this.#respond(request, bindings ?? {}))

  async #respond(request: Request, bindings: NodeBindings): Promise<Response> {
    const { clock, metrics } = this.#deps
    const { requests } = metrics
    const since = requests && clock.now()
    // No other member is read: `caller`, say, is known by the token alone.
    const { incoming, outgoing, received, sendAnswer } = bindings
    const exchange: Exchange = { incoming, outgoing, body: received === request ? incoming : undefined }
    try {
      await this.#route(request, exchange)
    } catch (error) {
      exchange.answer = answerTo(error)
    }
    const answer = exchange.answer ?? answerTo(new Error('A route has not answered'))
    if (since !== undefined) requests?.answered(request, answer.status, (clock.now() - since) / 1000)
    return sendAnswer?.(answer) ?? answer.toResponse(request)
  }

  /** Gives a request to its route, which answers in the exchange. @throws what the route throws; Problem if there is none. */
  #route(request: Request, exchange: Exchange): Promise<Response> | Response {
    if (this.#deps.lifecycle.isClosed) throw new Problem(503, 'gateway is closing')
    assertDecodable(request.url)
    return this.#app.fetch(request, exchange)
  }

  ready(): Promise<void> {
    return this.#deps.locker.ready()
  }

  close({
    drain = 0,
    grace = DEFAULT_GRACE,
  }: {
    drain?: number | undefined
    grace?: number | undefined
  } = {}): Promise<void> {
    checkTimeout('drain', drain)
    checkTimeout('grace', grace)
    this.#closing ??= this.#close(drain, grace)
    return this.#closing
  }

  async #close(drain: number, grace: number): Promise<void> {
    const { lifecycle, streams, feeds, queues, locker, clients, messaging, pushWorkers } = this.#deps
    await lifecycle.drain(drain)
    // Not at the end of the grace, which they would use up.
    streams.close()
    await Promise.all([lifecycle.end(grace, END_WITHIN), pushWorkers.close(grace)])
    clients.close()
    feeds.close()
    await queues.close()
    await messaging.close()
    await locker.close()
    await this.#release()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function createApp(deps: GatewayDeps): Hono<GatewayEnv> {
  // The path is routed as it was sent: a name in it is decoded once, as a segment.
  const root = new Hono<GatewayEnv>({ getPath: pathOf })
  root.onError((error) => {
    throw error
  })
  root.notFound(({ req }) => {
    throw unroutedProblem(root, req.path)
  })
  const app = root.basePath(deps.options.basePath)
  for (const route of ROUTES) addRoute(app, route, deps)
  if (deps.options.dashboard) for (const route of DASHBOARD_ROUTES) addRoute(app, route, deps)
  return root
}

/** Why no route was found: the path is unknown, or has routes for other methods. */
function unroutedProblem({ router }: Hono<GatewayEnv>, path: string): Problem {
  const allowed = METHODS.filter((method) => router.match(method, path)[0].length > 0)
  if (allowed.length === 0) return new Problem(404, 'no such route')
  return new Problem(405, 'method not allowed', { headers: { allow: allowed.join(', ') } })
}

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** The path of a URL, in which nothing is decoded. */
function pathOf({ url }: Request): string {
  const start = url.indexOf('/', url.indexOf('//') + 2)
  const end = url.slice(start).search(/[?#]/)
  return end < 0 ? url.slice(start) : url.slice(start, start + end)
}

/** @throws Problem 400 unless the path is UTF-8 in percent-encoding. */
function assertDecodable(url: string): void {
  if (!url.includes('%')) return
  try {
    decodeURIComponent(pathOf({ url } as Request))
  } catch {
    throw new Problem(400, 'invalid path')
  }
}
