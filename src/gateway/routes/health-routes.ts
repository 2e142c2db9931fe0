import { jsonAnswer } from '../http/answer.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

/** How long a probe may wait for Redis, ms. */
const READY_WITHIN = 2_000

/** For probes, which know no host name and have no token. */
export const HEALTH_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/healthz',
    scope: 'public',
    effect: 'reads',
    summary: 'Tells that the process lives.',
    handle: () => jsonAnswer(200, '{"status":"ok"}'),
  }),
  route({
    method: 'GET',
    path: '/readyz',
    scope: 'public',
    effect: 'reads',
    summary: 'Tells whether the gateway can serve requests, and is not about to close.',
    answers: { 200: 'It can.', 503: 'Redis does not answer, or the gateway is closing.' },
    async handle(_c, { lifecycle, locker }) {
      if (!lifecycle.isOpen) throw new Problem(503, 'gateway is closing')
      await locker.ready({ timeout: READY_WITHIN })
      return jsonAnswer(200, '{"status":"ready"}')
    },
  }),
]
