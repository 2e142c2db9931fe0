import type { ServiceRecord } from '../../../src/services/store/service-record.ts'
import type { ServicesStore } from '../../../src/services/store/store.ts'
import type { ServicesPlan } from './plan.ts'
import type { ServicesPort } from './port.ts'
import type { ServicesServer } from './server.ts'

/** A known bug that is planted around the production code. */
export interface ServicesMutation {
  name: string
  /** A seed that shows the bug. The search starts there. @default 1 */
  shownBy?: number
  /** Makes the faults that show the bug frequent. */
  plan?: (plan: ServicesPlan) => void
  /** Creates the record of a service. */
  record?: (service: string) => ServiceRecord
  /** Changes the transitions. */
  server?: (port: ServicesPort, server: ServicesServer) => ServicesPort
  /** Wraps the store of a Services object. */
  client?: (store: ServicesStore) => ServicesStore
}
