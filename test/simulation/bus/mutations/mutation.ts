import type { QueueRecord } from '../../../../src/bus/store/queue-record.ts'
import type { Instance } from '../../../../src/bus/store/store.ts'
import type { BusPlan } from '../plan.ts'
import type { BusPort } from '../port.ts'

/** A known bug that is planted in or around the production code. */
export interface BusMutation {
  name: string
  /** A seed that shows the bug. The search starts there. @default 1 */
  shownBy?: number
  /** Makes the faults that show the bug frequent. */
  plan?: (plan: BusPlan) => void
  /** Creates the record of a queue. */
  queue?: () => QueueRecord
  /** Changes the transitions. */
  server?: (port: BusPort) => BusPort
  /** Wraps the instance of a bus. */
  client?: (instance: Instance) => Instance
  /** Changes a class for the run. The returned function undoes that. */
  install?: () => () => void
}
