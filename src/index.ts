/**
 * soloflight does a piece of work once, however many processes ask for it at the same moment, and hands every one of
 * them the result.
 *
 * @example
 * import { Locker } from 'soloflight'
 *
 * await using locker = new Locker()
 * const answers = await Promise.all(Array.from({ length: 10 }, () => locker.run('answer', async () => 42)))
 */

/** Failures. */
export {
  AbortedError,
  ClosedError,
  CodecError,
  ConflictError,
  DeadlockError,
  DuplicateWorkerError,
  isRemote,
  LeaseLostError,
  LockTimeoutError,
  NotLockedError,
  OverloadedError,
  RemoteError,
  type RemoteFailure,
  RemovedError,
  SoloflightError,
  type SoloflightErrorOptions,
  StreamInterruptedError,
  TimeoutError,
  TooLargeError,
  UnavailableError,
  UnknownCommandError,
} from './errors.ts'
/** What layers share: a connection, a codec, a clock, telemetry. */
export {
  type Clock,
  type Codec,
  Connection,
  type ConnectionOptions,
  channelName,
  jsonCodec,
  type Logger,
  type LogLevel,
  logTo,
  type RedisClient,
  type RedisClusterClient,
  type RedisServerClient,
  type RedisSource,
  type TelemetryEvent,
  type TelemetryEvents,
  type Timer,
} from './kernel/index.ts'
/** One computation, every caller gets its result. */
export {
  type Done,
  Lease,
  Locker,
  type LockerOptions,
  type LockerStats,
  type ManyContext,
  type ManyResults,
  type ManyWork,
  type Memoized,
  type MemoizeOptions,
  MemoryStore,
  type MemoryStoreOptions,
  type OnUnavailable,
  type Peek,
  type PublishOptions,
  type RequestOptions,
  type ResultCacheOptions,
  type RunManyOptions,
  type RunOptions,
  type StaleOptions,
  type StreamContext,
  type StreamOptions,
  type StreamSource,
  type StreamWork,
  type Work,
  type WorkContext,
} from './locker/index.ts'
/** A queue in which identical jobs run once, and every submitter gets the result. */
export {
  type AnyJobs,
  type Backoff,
  type BackoffFunction,
  type BackoffOptions,
  type BulkJob,
  type CommandOf,
  type Conflict,
  type Counts,
  type Disposition,
  type FeedEvent,
  type Handler,
  type HandlerOf,
  Job,
  type JobEvent,
  type JobMap,
  type JobPage,
  type JobState,
  type JobStatus,
  MemoryQueueStore,
  type MemoryQueueStoreOptions,
  type PayloadOf,
  type ProcessOptions,
  type QueueEvents,
  type QueueOptions,
  type QueueStats,
  RedisQueue,
  type ResultOf,
  type ResultOptions,
  type RetainOptions,
  type Retention,
  type RunningJob,
  type SubmitOptions,
} from './queue/index.ts'
