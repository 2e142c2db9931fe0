import { Answer } from '../http/answer.ts'
import { type Route, route } from './route.ts'

/** Figures for Prometheus. */
export const METRICS_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/metrics',
    scope: 'read',
    effect: 'reads',
    summary: 'Tells the figures of the gateway and of its queues, for Prometheus.',
    answers: {
      200: 'The metrics, as text of Prometheus.',
      501: 'prom-client is not installed: `metrics need prom-client`.',
    },
    async handle(_c, { metrics }) {
      const { text, contentType } = await metrics.scrape()
      return new Answer(200, { 'content-type': contentType }, text)
    },
  }),
]
