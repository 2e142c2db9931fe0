import type { TransitionContext } from '../../../src/locker/store/record.ts'
import type { Store } from '../../../src/locker/store/store.ts'
import type { Plan } from './plan.ts'
import type { Port } from './port.ts'
import type { SimProcess } from './process.ts'
import type { SimServer } from './server.ts'
import type { World } from './world.ts'

/** A known bug, planted around the production code. */
export interface Mutation {
  name: string
  /** A seed that shows it within a moment: the search begins there, and saves what comes before. @default 1 */
  shownBy?: number
  /** Makes of a plan one in which it has more to break. */
  plan?: (plan: Plan) => void
  /** Changes what a transition is given. */
  surroundings?: (at: TransitionContext) => TransitionContext
  /** Changes the transitions. */
  server?: (port: Port, server: SimServer) => Port
  /** Changes what stands between a locker and its store. */
  client?: (store: Store, world: World, process: SimProcess) => Store
}
