import type { Hono } from 'hono'
import { audited } from './clients/audit.ts'
import type { GatewayDeps } from './deps.ts'
import type { GatewayEnv, RouteContext } from './env.ts'
import { ParameterReader } from './http/parameters.ts'
import type { Route } from './routes/route.ts'

/** What the router is given: the answer itself is in the environment. */
const ROUTED = new Response(null)

/** Adds a route of the table. Its handler runs when the request may reach it, and its parameters are valid. */
export function addRoute(
  app: Hono<GatewayEnv>,
  { method, path, scope, effect, action, query, handle }: Route,
  deps: GatewayDeps,
): void {
  const { access, metrics } = deps
  const paths = [path].flat()
  const [pattern = ''] = paths
  const parameters = new ParameterReader(query)
  const answer = (c: RouteContext) => {
    metrics.requests?.routed(c.req.raw, pattern)
    access.check(c, scope, effect)
    return handle(c, deps, parameters.read(c.req.url))
  }
  app.on(method, paths, async (c) => {
    c.env.answer = await (action === undefined
      ? answer(c)
      : audited(
          c,
          action,
          () => access.nameOf(c),
          () => answer(c),
        ))
    return ROUTED
  })
}
