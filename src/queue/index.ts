/** The queue: identical jobs run once, and all submitters get the result. */

export { JsonText } from '../kernel/codec/json-text.ts'
export { jsonTextCodec } from '../kernel/codec/json-text-codec.ts'
export type {
  Disposition,
  FeedEvent,
  JobEvent,
  LogEvent,
  QueueEvents,
  QueueStats,
  WatchOptions,
} from './events.ts'
export {
  type AnyJobs,
  type BulkJob,
  type CommandOf,
  type HandlerOf,
  Job,
  type JobMap,
  type JobPage,
  type JobStatus,
  type PayloadOf,
  type ResultOf,
  type ResultOptions,
} from './job.ts'
export {
  type ProcessOptions,
  QUEUE_DEFAULTS,
  type QueueNamesOptions,
  type QueueOptions,
  type RetainOptions,
  type SubmitOptions,
} from './options.ts'
export { RedisQueue } from './queue.ts'
export { MemoryQueueStore, type MemoryQueueStoreOptions } from './store/memory-store.ts'
export type { Conflict, Counts, JobState, Renewal, Retention } from './store/store.ts'
export type { QueueTotals } from './store/totals.ts'
export type { PostJob, PostJobOptions, PostOptions } from './submitting/post.ts'
export type { TakeOptions } from './taking/options.ts'
export { TakenJob } from './taking/taken-job.ts'
export type { Backoff, BackoffFunction, BackoffOptions } from './working/backoff.ts'
export type { Handler, RunningJob } from './working/running-job.ts'
