import type { QueueSurroundings } from '../../../src/queue/store/model/queue-state.ts'
import type { QueueStore } from '../../../src/queue/store/store.ts'
import type { QueuePlan } from './plan.ts'
import type { QueuePort } from './port.ts'
import type { QueueServer } from './server.ts'

/** A known bug, planted around the production code. */
export interface QueueMutation {
  name: string
  /** A seed that shows it within a moment: the search begins there, and saves what comes before. @default 1 */
  shownBy?: number
  /** Lets that happen often which brings it to light. */
  plan?: (plan: QueuePlan) => void
  /** Changes what a transition is given. */
  surroundings?: (at: QueueSurroundings) => QueueSurroundings
  /** Changes the transitions. */
  server?: (port: QueuePort, server: QueueServer) => QueuePort
  /** Changes what stands between a queue and its store. */
  client?: (store: QueueStore) => QueueStore
}
