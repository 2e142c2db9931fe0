/** The Locker: one computation, every caller gets its result. */

export type { Counters } from './caller.ts'
export { Lease, type PublishOptions } from './lease.ts'
export { Locker, type LockerStats, type Peek } from './locker.ts'
export { MemoryStore, type MemoryStoreOptions } from './memory-store.ts'
export {
  LOCKER_DEFAULTS,
  type LockerOptions,
  type MemoizeOptions,
  type RequestOptions,
  type RunOptions,
} from './options.ts'
export type { ResultCacheOptions } from './result-cache.ts'
export type { Done, Work, WorkContext } from './waiter.ts'
