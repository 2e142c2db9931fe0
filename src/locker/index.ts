/** The Locker: one computation, every caller gets its result. */

export type { Counters } from './caller.ts'
export { Lease, type PublishOptions } from './lease.ts'
export { Locker, type LockerStats, type Peek } from './locker.ts'
export type { Memoized } from './memoize.ts'
export { MemoryStore, type MemoryStoreOptions } from './memory-store.ts'
export {
  LOCKER_DEFAULTS,
  type LockerOptions,
  type MemoizeOptions,
  type RequestOptions,
  type RunManyOptions,
  type RunOptions,
  type StaleOptions,
} from './options.ts'
export type { ResultCacheOptions } from './result-cache.ts'
export type { ManyContext, ManyResults, ManyWork } from './round.ts'
export type { StreamContext, StreamOptions, StreamSource, StreamWork } from './stream/index.ts'
export type { Done, Work, WorkContext } from './waiter.ts'
