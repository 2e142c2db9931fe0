import { WORKER_ROUTES } from '../clients/routes.ts'
import { EVENT_ROUTES } from '../events/routes.ts'
import { STREAM_ROUTES } from '../events/stream-routes.ts'
import { OVERVIEW_ROUTES } from '../overview/routes.ts'
import { SEARCH_ROUTES } from '../search/routes.ts'
import { BUS_ROUTES } from './bus-routes.ts'
import { docsRoutes } from './docs-routes.ts'
import { FINISH_ROUTES } from './finish-routes.ts'
import { HEALTH_ROUTES } from './health-routes.ts'
import { JOB_ROUTES } from './job-routes.ts'
import { LOCK_ROUTES } from './lock-routes.ts'
import { METRICS_ROUTES } from './metrics-routes.ts'
import { QUEUE_ROUTES } from './queue-routes.ts'
import type { Route } from './route.ts'
import { SERVICE_ROUTES } from './service-routes.ts'
import { SOCKET_ROUTES } from './socket-routes.ts'
import { SUBMIT_ROUTES } from './submit-routes.ts'
import { TAKE_ROUTES } from './take-routes.ts'

const DESCRIBED: readonly Route[] = [
  ...SUBMIT_ROUTES,
  ...TAKE_ROUTES,
  ...FINISH_ROUTES,
  ...JOB_ROUTES,
  ...QUEUE_ROUTES,
  ...LOCK_ROUTES,
  ...STREAM_ROUTES,
  ...EVENT_ROUTES,
  ...SEARCH_ROUTES,
  ...WORKER_ROUTES,
  ...OVERVIEW_ROUTES,
  ...SERVICE_ROUTES,
  ...BUS_ROUTES,
  ...SOCKET_ROUTES,
  ...HEALTH_ROUTES,
  ...METRICS_ROUTES,
]

/** All routes of a gateway. */
export const ROUTES: readonly Route[] = [...DESCRIBED, ...docsRoutes(DESCRIBED)]
