import type { TransitionContext } from '../../../src/locker/store/record.ts'
import type { Store } from '../../../src/locker/store/store.ts'
import type { SimProcess } from '../process.ts'
import type { Plan } from './plan.ts'
import type { Port } from './port.ts'
import type { SimServer } from './server.ts'
import type { World } from './world.ts'

/** A planted bug, around the production code. */
export interface Mutation {
  name: string
  /** A seed that shows it: the search begins there. @default 1 */
  shownBy?: number
  /** Changes a plan so that the bug shows more often. */
  plan?: (plan: Plan) => void
  /** Changes the context of a transition. */
  surroundings?: (at: TransitionContext) => TransitionContext
  /** Changes the transitions. */
  server?: (port: Port, server: SimServer) => Port
  /** Changes the store that a locker uses. */
  client?: (store: Store, world: World, process: SimProcess) => Store
}
