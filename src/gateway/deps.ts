import type { Clock } from '../kernel/time.ts'
import type { Locker } from '../locker/index.ts'
import type { Access } from './access.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { ResolvedGatewayOptions } from './options.ts'
import type { Queues } from './queues.ts'

/** What the routes of a gateway use. */
export interface GatewayDeps {
  readonly options: ResolvedGatewayOptions
  readonly clock: Clock
  readonly queues: Queues
  readonly locker: Locker
  readonly access: Access
  readonly lifecycle: Lifecycle
}
