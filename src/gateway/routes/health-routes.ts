import type { Hono } from 'hono'
import type { GatewayDeps } from '../deps.ts'
import type { GatewayEnv } from '../env.ts'
import { Problem } from '../problem.ts'

/** How long a probe may wait for Redis, ms. */
const READY_WITHIN = 2_000

/** `/healthz`: the process lives. `/readyz`: it can serve requests, and is not about to close. */
export function healthRoutes(app: Hono<GatewayEnv>, { access, lifecycle, locker }: GatewayDeps): void {
  app.get(
    '/healthz',
    access.route('public', 'reads', (c) => c.json({ status: 'ok' })),
  )
  app.get(
    '/readyz',
    access.route('public', 'reads', async (c) => {
      if (!lifecycle.isOpen) throw new Problem(503, 'gateway is closing')
      await locker.ready({ timeout: READY_WITHIN })
      return c.json({ status: 'ready' })
    }),
  )
}
