/** Message queues, channels, pub/sub, persisted objects and services over one or several Redis. */

export { Bus, type BusEvents } from './bus.ts'
export {
  BusService,
  type BusServiceEvents,
  type ServeOptions,
  type ServiceConnectOptions,
  type ServiceRequestOptions,
} from './bus-service.ts'
export { Channel, type ChannelEvents } from './channel/channel.ts'
export type { ChannelOptions } from './channel/options.ts'
export { BUS_DEFAULTS, type BusOptions, type InstanceSource } from './options.ts'
export type { Persisted, PersistedMethods } from './persisted/persisted-methods.ts'
export type { PubsubOptions } from './pubsub/options.ts'
export { Pubsub, type PubsubEvents } from './pubsub/pubsub.ts'
export type { TopicPosition } from './pubsub/subscription.ts'
export type { MessageInfo, QueueEvents, QueueMessage } from './queue/events.ts'
export type { AttachOptions, ConsumeOptions, PushOptions, Throttle } from './queue/options.ts'
export { Queue } from './queue/queue.ts'
export type { ReplyFunction } from './service-reply.ts'
export { MemoryBus, type MemoryBusOptions } from './store/memory-store.ts'
