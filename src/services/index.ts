/** Services: calls by name to the least busy process. */

export type { Call } from './call.ts'
export type { BroadcastAnswer } from './calling/broadcast.ts'
export type { ProcessInfo, ServiceLoad } from './census.ts'
export type { AnyApi, Api, ArgsOf, ChunkOf, EventOf, ResultOf } from './contract.ts'
export {
  type CallOptions,
  type Choice,
  type RegisterOptions,
  type RequireOptions,
  SERVICES_DEFAULTS,
  type ServicesOptions,
} from './options.ts'
export { Remote } from './remote.ts'
export { Service, type ServiceHandler } from './service.ts'
export { Services, type ServicesEvents, type ServicesStats } from './services.ts'
export type { ServingInfo } from './serving/registrations.ts'
export type { EventStats } from './serving/service-host.ts'
export { MemoryServices, type MemoryServicesOptions } from './store/memory-store.ts'
