import type { Hono } from 'hono'
import type { GatewayDeps } from './deps.ts'
import type { GatewayEnv } from './env.ts'
import { readParameters } from './http/parameters.ts'
import type { Route } from './routes/route.ts'

/** Adds a route of the table. Its handler runs when the request may reach it, and its parameters are valid. */
export function addRoute(
  app: Hono<GatewayEnv>,
  { method, path, scope, effect, query, handle }: Route,
  deps: GatewayDeps,
): void {
  app.on(method, [path].flat(), (c) => {
    deps.access.check(c, scope, effect)
    return handle(c, deps, readParameters(c.req.url, query))
  })
}
