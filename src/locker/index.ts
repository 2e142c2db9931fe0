/** The Locker: one computation, whose result all callers get. */

export type { Done, ResultCacheOptions } from './cache/result-cache.ts'
export type { Work, WorkContext } from './call.ts'
export { Lease, type PublishOptions } from './lease.ts'
export { Locker, type LockerStats, type Peek } from './locker.ts'
export type { Counters } from './locker-context.ts'
export type { Memoized } from './memoize.ts'
export {
  LOCKER_DEFAULTS,
  type LockerOptions,
  type MemoizeOptions,
  type OnUnavailable,
  type RequestOptions,
  type RunManyOptions,
  type RunOptions,
  type StaleOptions,
  type TokenRequestOptions,
  type WaitOptions,
} from './options.ts'
export type { ManyContext, ManyResults, ManyWork } from './processor/work-runner.ts'
export { MemoryStore, type MemoryStoreOptions } from './store/memory-store.ts'
export type {
  FollowedChunk,
  FollowOptions,
  StreamContext,
  StreamFollowing,
  StreamOptions,
  StreamSource,
  StreamWork,
} from './stream/options.ts'
export { TokenLease } from './token-lease.ts'
