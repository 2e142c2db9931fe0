import type { JobRecord } from '../../../src/queue/store/model/job-record.ts'
import type { TransitionContext } from '../../../src/queue/store/model/queue-state.ts'
import type { QueueStore } from '../../../src/queue/store/store.ts'
import type { QueuePlan } from './plan.ts'
import type { QueuePort } from './port.ts'
import type { QueueServer } from './server.ts'

/** A known bug that is planted around the production code. */
export interface QueueMutation {
  name: string
  /** A seed that shows the bug. The search starts there. @default 1 */
  shownBy?: number
  /** Makes the faults that show the bug frequent. */
  plan?: (plan: QueuePlan) => void
  /** Changes the context of a transition. */
  context?: (at: TransitionContext) => TransitionContext
  /** Changes the transitions. */
  server?: (port: QueuePort, server: QueueServer) => QueuePort
  /** Wraps the store of a queue. */
  client?: (store: QueueStore) => QueueStore
}

/** The same store with some of its methods replaced. */
export function wrapped(store: QueueStore, changes: Partial<QueueStore>): QueueStore {
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(changes, name) ?? Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

export function jobOf(server: QueueServer, id: string): JobRecord | undefined {
  return server.model.state.jobs.get(id)
}
