import type { RemoteFailure } from '../errors.ts'
import { type Codec, checkCodec, jsonCodec } from '../kernel/codec/codec.ts'
import { checkPrefix } from '../kernel/keys.ts'
import {
  type Complete,
  checkFlag,
  checkFunction,
  checkLease,
  checkOptions,
  checkSignal,
  checkTimeout,
  countFrom,
  defaultsOf,
  durationFrom,
  expectedError,
  falseOr,
  instanceOf,
  integerUpTo,
  numberBetween,
  type OptionTable,
  objectOf,
  oneOf,
  pick,
  REQUIRED,
  timeoutFrom,
  unchecked,
  withDefaults,
} from '../kernel/options.ts'
import type { RedisSource } from '../kernel/redis/client.ts'
import type { Connection } from '../kernel/redis/connection.ts'
import type { Clock } from '../kernel/time.ts'
import type { Registration } from './registration.ts'
import { MemoryQueueStore } from './store/memory-store.ts'
import { type Conflict, MAX_DELAY, type QueueStore, type Retention } from './store/store.ts'
import { type Backoff, type BackoffFunction, checkBackoff } from './working/backoff.ts'

/** Options of one submission that a queue can set for all of its submissions. Durations are in ms. */
export interface SharedJobOptions {
  /**
   * How long a result is returned to later submissions of the same job. With `dedupe: false` the default is 0.
   * @default 1_800_000
   */
  ttl?: number | undefined
  /**
   * How long a failure is returned to later submissions of the same job.
   * @default 0
   */
  errorTtl?: number | undefined
  /**
   * Number of attempts, from 1, after which a job has failed. Infinity is allowed.
   * @default 1
   */
  attempts?: number | undefined
  /**
   * How long a submitter waits for the outcome until it is rejected with TimeoutError; Infinity is allowed. The job goes on.
   * @default 60_000
   */
  timeout?: number | undefined
  /**
   * Effect of a submission whose `dedupe` key is in use with another payload. 'reject': it is rejected with ConflictError.
   * 'join': it gets the outcome of the existing job. 'rerun': the job runs again after the current run, with the newest
   * payload. 'exclusive': it is rejected while a job waits under the key, whatever its payload, and runs after a job that runs;
   * no result is returned to it.
   * @default 'reject'
   */
  conflict?: Conflict | undefined
  /**
   * Cancel the job when its last waiter leaves, by a timeout, an abort or `close`.
   * @default false
   */
  abortUnwanted?: boolean | undefined
}

/** Options of one submission. Durations are in ms. */
export interface SubmitOptions extends SharedJobOptions {
  /**
   * Key that identifies the job within its command: submissions with the same key are one job. `false`: the job is never
   * deduplicated. By default the payload is the key.
   */
  dedupe?: string | false | undefined
  /**
   * The job may start after this delay, up to one year.
   * @default 0
   */
  delay?: number | undefined
  /**
   * Jobs with a higher priority start first, 0 to 1_000_000.
   * @default 0
   */
  priority?: number | undefined
  /**
   * Puts the job before the waiting jobs of the same command, instead of after them.
   * @default false
   */
  lifo?: boolean | undefined
  /** Delay between attempts. By default the `backoff` of the queue that runs the job. */
  backoff?: Backoff | undefined
  /** Stops the waiting of this submitter: it is rejected with AbortedError. */
  signal?: AbortSignal | undefined
  /** Called with each value that the handler passes to `job.progress`, in whichever process the handler runs. */
  onProgress?: ((value: unknown) => void) | undefined
}

/** How long and how many finished jobs are kept in `queue.jobs`. */
export interface RetainOptions {
  /** Completed jobs. @default false: a completed job expires with its ttl */
  completed?: Retention | false | undefined
  /** Failed jobs (dead letters), for inspection and `queue.retry`. @default { count: 1_000, age: 604_800_000 } */
  failed?: Retention | false | undefined
}

/** Options of a RedisQueue. Durations are in ms. */
export interface QueueOptions extends SharedJobOptions {
  /**
   * The Redis server: a URL (string or object), options of ioredis (Sentinel included), an ioredis client or Cluster, which
   * the caller closes, or a Connection that several queues and lockers share. Without it, or with null, the queue is
   * embedded: it works within this process only. `redis: undefined` does the same and emits a warning.
   */
  redis?: RedisSource | Connection | null | undefined
  /** For tests: a memory store that several queues share, as processes share Redis. Excludes `redis`. */
  store?: MemoryQueueStore | undefined
  /** For tests: the clock of an embedded queue. A Connection or a store has its own `clock` option. */
  clock?: Clock | undefined
  /** Prefix of all Redis keys. @default 'soloflight' */
  prefix?: string | undefined
  /** Lease of a job, from 100. A live worker renews it; the job of a dead worker is requeued when it ends. @default 10_000 */
  lease?: number | undefined
  /** Longest duration of an attempt; Infinity is allowed. A longer attempt fails with TimeoutError. @default 3_600_000 */
  maxHold?: number | undefined
  /** A call fails with UnavailableError if Redis does not answer within this time. @default 2_000 */
  unavailableAfter?: number | undefined
  /** Delay between attempts of the jobs that this process runs, unless their submission sets it. @default 0 */
  backoff?: Backoff | BackoffFunction | undefined
  /** How often a job may lose its worker. The next loss fails it with E_STALLED. @default 3 */
  maxStalls?: number | undefined
  /** Retention of the jobs that this process finishes. */
  retain?: RetainOptions | undefined
  /** Largest payload, in bytes of its JSON. @default 1_048_576 */
  maxPayload?: number | undefined
  /** Effect of a submission while no worker of its command is known. 'keep': it waits. 'refuse': UnknownCommandError. @default 'keep' */
  unknownCommands?: 'keep' | 'refuse' | undefined
  /** Encodes results and progress. All processes of a queue must use the same codec. @default jsonCodec */
  codec?: Codec | undefined
  /** Returns the trace context (W3C traceparent) of the submitter. The handler reads it as `job.trace`. */
  trace?: (() => string | undefined) | undefined
  /** Returns the part of an error that leaves this process and is stored, like the option of a Locker. */
  exposeError?: ((failure: RemoteFailure, error: unknown) => RemoteFailure) | undefined
}

/** Options of {@link RedisQueue.names}. `redis` or `store` is needed. */
export type QueueNamesOptions = Pick<QueueOptions, 'redis' | 'store' | 'prefix' | 'unavailableAfter'>

/** Options of a worker. */
export interface ProcessOptions {
  /** Largest number of jobs of the command that run at once in this process, 1 to 10_000. @default 1 */
  concurrency?: number | undefined
}

/** The queue options with a constant default. */
export type QueueDefaults = Complete<
  Omit<QueueOptions, 'redis' | 'store' | 'clock' | 'retain' | 'codec' | 'trace' | 'exposeError'>
>

/** Validated options of a queue, with defaults filled in. */
export interface ResolvedQueueOptions extends QueueDefaults {
  retain: { completed: Retention; failed: Retention }
  codec: Codec
  trace: (() => string | undefined) | undefined
  exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
  /** Options set on this queue that are stored with each job. The worker's own options apply where they are undefined. */
  sentWithJob: Pick<SubmitOptions, 'ttl' | 'errorTtl' | 'attempts' | 'backoff'>
}

/** What the parts of a queue share. */
export interface QueueContext {
  /** Name of the queue. */
  readonly queue: string
  readonly store: QueueStore
  readonly clock: Clock
  readonly options: ResolvedQueueOptions
  /** How long the store may take to answer, ms. */
  readonly within: number
  /** Undefined for an embedded queue. */
  readonly connection: Connection | undefined
  readonly registration: Registration
}

/** An outcome stays readable for at least so long, ms, whatever its ttl: for waiters whose message was lost. */
export const OUTCOME_RETENTION = 15_000

/** A delivery that is not accepted within this time is requeued, ms. */
export function acceptTimeout(lease: number): number {
  return Math.min(2000, lease / 2)
}

const KEEP_NONE: Retention = { count: 0, age: 0 }
const DEFAULT_DEAD_LETTERS: Retention = { count: 1_000, age: 7 * 24 * 60 * 60_000 }

const MAX_PRIORITY = 1_000_000
export const MAX_CONCURRENCY = 10_000
/** Longest duration that is stored, ms: Lua and Redis handle it exactly. */
const MAX_DURATION = 10 * 365 * 24 * 60 * 60_000

/** A duration that is stored. The store rounds it. */
const checkStored = numberBetween(0, MAX_DURATION)

const RETENTION: OptionTable<Retention> = {
  count: [integerUpTo(10_000_000), REQUIRED],
  age: [numberBetween(1, MAX_DURATION), REQUIRED],
}

const RETAIN: OptionTable<RetainOptions> = {
  completed: [falseOr(objectOf(RETENTION))],
  failed: [falseOr(objectOf(RETENTION))],
}

const QUEUE_OPTIONS: OptionTable<QueueOptions, QueueDefaults> = {
  prefix: [checkPrefix, 'soloflight'],
  ttl: [checkStored, 30 * 60_000],
  errorTtl: [checkStored, 0],
  attempts: [countFrom(1), 1],
  timeout: [checkTimeout, 60_000],
  conflict: [oneOf(['reject', 'join', 'rerun', 'exclusive']), 'reject'],
  abortUnwanted: [checkFlag, false],
  lease: [checkLease, 10_000],
  maxHold: [timeoutFrom(1), 60 * 60_000],
  unavailableAfter: [durationFrom(1), 2_000],
  backoff: [(name, value) => typeof value === 'function' || checkBackoff(name, value), 0],
  maxStalls: [countFrom(0), 3],
  maxPayload: [integerUpTo(512 * 1024 * 1024), 1024 * 1024],
  unknownCommands: [oneOf(['keep', 'refuse']), 'keep'],
  redis: [unchecked],
  store: [instanceOf(MemoryQueueStore, 'a MemoryQueueStore')],
  clock: [unchecked],
  retain: [objectOf(RETAIN)],
  codec: [checkCodec],
  trace: [checkFunction],
  exposeError: [checkFunction],
}

/** Defaults of the queue options. */
export const QUEUE_DEFAULTS: QueueDefaults = defaultsOf(QUEUE_OPTIONS)

const NAMES_OPTIONS = pick(QUEUE_OPTIONS, 'redis', 'store', 'prefix', 'unavailableAfter')
const NAMES_DEFAULTS = pick(QUEUE_DEFAULTS, 'prefix', 'unavailableAfter')

/** Options that a queue has as well are checked the same way. */
export const SUBMIT_OPTIONS: OptionTable<SubmitOptions> = {
  ...pick(QUEUE_OPTIONS, 'ttl', 'errorTtl', 'attempts', 'timeout', 'conflict', 'abortUnwanted'),
  dedupe: [checkDedupe],
  delay: [numberBetween(0, MAX_DELAY)],
  priority: [(name, value) => value === 0 || checkPriority(name, value)],
  lifo: [checkFlag],
  backoff: [checkBackoff],
  signal: [checkSignal],
  onProgress: [checkFunction],
}

const checkPriority = integerUpTo(MAX_PRIORITY)

function checkDedupe(name: string, value: unknown): void {
  if (value === false || (typeof value === 'string' && value !== '')) return
  throw expectedError(name, 'a key or false', value)
}

const PROCESS_OPTIONS: OptionTable<ProcessOptions, Complete<ProcessOptions>> = {
  concurrency: [integerUpTo(MAX_CONCURRENCY), 1],
}

const PROCESS_DEFAULTS: Complete<ProcessOptions> = defaultsOf(PROCESS_OPTIONS)

/** Checks the options of a submission. @throws TypeError */
export function checkSubmitOptions(options: SubmitOptions): void {
  checkOptions(options, SUBMIT_OPTIONS)
}

/** Checks the options of a worker and fills in the defaults. @throws TypeError */
export function resolveProcessOptions(given: ProcessOptions): Complete<ProcessOptions> {
  checkOptions(given, PROCESS_OPTIONS)
  return withDefaults(given, PROCESS_DEFAULTS)
}

/** Checks the options of a queue and fills in the defaults. @throws TypeError */
export function resolveQueueOptions(given: QueueOptions): ResolvedQueueOptions {
  checkOptions(given, QUEUE_OPTIONS)
  const options = withDefaults(given, QUEUE_DEFAULTS)
  const { completed = false, failed = DEFAULT_DEAD_LETTERS } = given.retain ?? {}
  return {
    ...options,
    lease: Math.ceil(options.lease),
    retain: { completed: retentionOf(completed), failed: retentionOf(failed) },
    codec: given.codec ?? jsonCodec,
    trace: given.trace,
    exposeError: given.exposeError ?? ((failure) => failure),
    sentWithJob: optionsSentWithJob(given),
  }
}

/** Checks the options of `names` and fills in the defaults. @throws TypeError */
export function resolveNamesOptions(
  given: QueueNamesOptions,
): Pick<QueueDefaults, 'prefix' | 'unavailableAfter'> {
  checkOptions(given, NAMES_OPTIONS)
  return withDefaults(given, NAMES_DEFAULTS)
}

function optionsSentWithJob({
  ttl,
  errorTtl,
  attempts,
  backoff,
}: QueueOptions): ResolvedQueueOptions['sentWithJob'] {
  return { ttl, errorTtl, attempts, backoff: typeof backoff === 'function' ? undefined : backoff }
}

function retentionOf(given: Retention | false): Retention {
  return given === false ? KEEP_NONE : { count: given.count, age: Math.round(given.age) }
}
