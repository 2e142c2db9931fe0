import type { Hono } from 'hono'
import { audited } from './audit.ts'
import type { GatewayDeps } from './deps.ts'
import type { GatewayEnv, RouteContext } from './env.ts'
import { readParameters } from './http/parameters.ts'
import type { Route } from './routes/route.ts'

/** Adds a route of the table. Its handler runs when the request may reach it, and its parameters are valid. */
export function addRoute(
  app: Hono<GatewayEnv>,
  { method, path, scope, effect, action, query, handle }: Route,
  deps: GatewayDeps,
): void {
  const { access } = deps
  const answer = (c: RouteContext) => {
    access.check(c, scope, effect)
    return handle(c, deps, readParameters(c.req.url, query))
  }
  app.on(method, [path].flat(), (c) =>
    action === undefined
      ? answer(c)
      : audited(
          c,
          action,
          () => access.nameOf(c),
          () => answer(c),
        ),
  )
}
