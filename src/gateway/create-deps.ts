import { jsonTextCodec } from '../kernel/codec/json-text-codec.ts'
import type { Connection } from '../kernel/redis/connection.ts'
import { systemClock } from '../kernel/time.ts'
import { Locker, MemoryStore } from '../locker/index.ts'
import { MemoryQueueStore, type QueueOptions, RedisQueue } from '../queue/index.ts'
import { listQueues } from '../queue/internal.ts'
import { MemoryServices } from '../services/index.ts'
import { Access } from './access.ts'
import { Clients } from './clients/clients.ts'
import type { GatewayDeps } from './deps.ts'
import { Feeds } from './events/feeds.ts'
import { QueueWatches } from './events/queue-watches.ts'
import { EventStreams } from './http/event-streams.ts'
import { Lifecycle } from './lifecycle.ts'
import { Messaging } from './messaging/messaging.ts'
import { Metrics } from './metrics/metrics.ts'
import type { GatewayOptions, ResolvedGatewayOptions } from './options.ts'
import { OverviewReader } from './overview/reader.ts'
import { RecentAnswers } from './overview/recent-answers.ts'
import { Snapshots } from './overview/snapshots.ts'
import { PushWorkers } from './push/push-workers.ts'
import { Queues } from './queues.ts'
import { Scans } from './search/scans.ts'

/** Opens what the routes use. @throws TypeError if an option of its queues, its locker or its push workers is invalid. */
export function createDeps(
  given: GatewayOptions,
  options: ResolvedGatewayOptions,
  connection: Connection | undefined,
  sockets: () => number,
): GatewayDeps {
  const { prefix, maxBody } = options
  const codec = jsonTextCodec
  const clock = connection?.clock ?? given.clock ?? systemClock
  const memory = given.queueOptions?.store ?? new MemoryQueueStore({ clock })
  const storeOptions = { ...(connection ? { redis: connection } : { store: memory }), prefix }
  const queueOptions = { maxPayload: maxBody, ...given.queueOptions, ...storeOptions, codec }
  const openQueue = (name: string, more?: QueueOptions) => new RedisQueue(name, { ...queueOptions, ...more })
  // Checks the options now. Nothing is sent for a queue that is not used.
  void openQueue('gateway').close({ grace: 0 })
  const lifecycle = new Lifecycle(clock)
  const streams = new EventStreams(options, clock, lifecycle)
  const lockerStore = given.lockerOptions?.store ?? new MemoryStore({ clock })
  const lockerStoreOptions = connection ? { redis: connection } : { store: lockerStore }
  const servicesStore = new MemoryServices({ clock })
  const queues = new Queues(openQueue, (limit) => listQueues(storeOptions, limit), clock)
  const locker = new Locker({ ...given.lockerOptions, ...lockerStoreOptions, prefix, codec })
  const census = connection ?? memory.census
  const members = connection ? [connection] : [memory.census, lockerStore.census, servicesStore.census]
  const answers = new RecentAnswers(members, clock)
  const overviewSources = { queues, locker, answers, services: given.services, prefix }
  const reader = new OverviewReader(overviewSources, connection ? 'redis' : 'memory')
  const pushWorkers = new PushWorkers(options.push, { clock, maxBody, openQueue })
  const open = { waiting: () => lifecycle.waiting, streams: () => streams.size, sockets }
  return {
    ...{ options, clock, queues, locker, overviewSources },
    messaging: new Messaging({
      ...{ services: given.services, bus: given.bus, connection, servicesStore, clock, prefix },
      maxMessage: maxBody,
    }),
    access: new Access(options),
    lifecycle,
    streams,
    watches: new QueueWatches(queues, options.tokens),
    feeds: new Feeds(clock),
    scans: new Scans(),
    metrics: new Metrics({ queues, open, pushes: () => pushWorkers.figures }),
    clients: new Clients(census, clock, prefix, options.tokens),
    snapshots: new Snapshots(() => reader.read(), clock),
    pushWorkers,
  }
}
