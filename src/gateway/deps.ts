import type { Clock } from '../kernel/time.ts'
import type { Locker } from '../locker/index.ts'
import type { Access } from './access.ts'
import type { Clients } from './clients/clients.ts'
import type { Feeds } from './events/feeds.ts'
import type { QueueWatches } from './events/queue-watches.ts'
import type { EventStreams } from './http/event-streams.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { Messaging } from './messaging/messaging.ts'
import type { Metrics } from './metrics/metrics.ts'
import type { ResolvedGatewayOptions } from './options.ts'
import type { Snapshots } from './overview/snapshots.ts'
import type { OverviewSources } from './overview/sources.ts'
import type { Queues } from './queues.ts'
import type { Scans } from './search/scans.ts'

/** What the routes of a gateway use. */
export interface GatewayDeps {
  readonly options: ResolvedGatewayOptions
  readonly clock: Clock
  readonly queues: Queues
  readonly locker: Locker
  readonly messaging: Messaging
  readonly access: Access
  readonly lifecycle: Lifecycle
  /** Closed with the gateway. `grace`: ms. */
  readonly pushWorkers: { close(grace: number): Promise<void> }
  readonly metrics: Metrics
  /** The workers that have named themselves here, and what clients hold. */
  readonly clients: Clients
  readonly overviewSources: OverviewSources
  readonly snapshots: Snapshots
  /** Answers of server-sent events are made by `eventStream`. */
  readonly streams: EventStreams
  readonly watches: QueueWatches
  readonly feeds: Feeds
  readonly scans: Scans
}
