/** The queue: identical jobs run once, and every submitter gets the result. */

export type { Backoff, BackoffFunction, BackoffOptions } from './backoff.ts'
export type { Disposition, FeedEvent, JobEvent, QueueEvents } from './events.ts'
export { Job, type ResultOptions } from './job.ts'
export { MemoryQueueStore, type MemoryQueueStoreOptions } from './memory/memory-store.ts'
export {
  type ProcessOptions,
  QUEUE_DEFAULTS,
  type QueueOptions,
  type RetainOptions,
  type SubmitOptions,
} from './options.ts'
export { type BulkJob, type QueueStats, RedisQueue } from './queue.ts'
export type { Handler, RunningJob } from './running-job.ts'
export type { Conflict, Counts, JobState, Retention } from './store.ts'
export type {
  AnyJobs,
  CommandOf,
  HandlerOf,
  JobMap,
  JobPage,
  JobStatus,
  PayloadOf,
  ResultOf,
} from './types.ts'
