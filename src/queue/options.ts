import type { RemoteFailure } from '../errors.ts'
import { type Codec, checkCodec, jsonCodec } from '../kernel/codec/codec.ts'
import type { Clock } from '../kernel/event-loop.ts'
import { checkPrefix } from '../kernel/keys.ts'
import type { CallLimits } from '../kernel/limits.ts'
import {
  type Check,
  type Complete,
  checkChoice,
  checkCount,
  checkDuration,
  checkFields,
  checkFlag,
  checkFunction,
  checkInstance,
  checkLease,
  checkNumber,
  checkOptions,
  checkSignal,
  checksOf,
  checkTimeout,
  checkWhole,
  columnsOf,
  expectedError,
  pick,
  unchecked,
  withDefaults,
} from '../kernel/options.ts'
import type { RedisSource } from '../kernel/redis/client.ts'
import type { Connection } from '../kernel/redis/connection.ts'
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
   * payload.
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
  /** Time limit of a call to the store. */
  readonly limits: CallLimits
  /** Undefined for an embedded queue. */
  readonly connection: Connection | undefined
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

/** Checks a duration that is stored. The store rounds it. */
const checkMs: Check = (name, value) => checkNumber(name, value, 0, MAX_DURATION)

const { checks: QUEUE_CHECKS, defaults } = columnsOf<QueueOptions, QueueDefaults>({
  prefix: [(_, value) => checkPrefix(value), 'soloflight'],
  ttl: [checkMs, 30 * 60_000],
  errorTtl: [checkMs, 0],
  attempts: [(name, value) => checkCount(name, value, 1), 1],
  timeout: [checkTimeout, 60_000],
  conflict: [(name, value) => checkChoice(name, value, ['reject', 'join', 'rerun']), 'reject'],
  abortUnwanted: [checkFlag, false],
  lease: [(_, value) => checkLease(value), 10_000],
  maxHold: [(name, value) => checkDuration(name, value, { min: 1, infinite: true }), 60 * 60_000],
  unavailableAfter: [(name, value) => checkDuration(name, value, { min: 1 }), 2_000],
  backoff: [(_, value) => typeof value === 'function' || checkBackoff(value), 0],
  maxStalls: [(name, value) => checkCount(name, value, 0), 3],
  maxPayload: [(name, value) => checkWhole(name, value, 512 * 1024 * 1024), 1024 * 1024],
  unknownCommands: [(name, value) => checkChoice(name, value, ['keep', 'refuse']), 'keep'],
  redis: [unchecked],
  store: [(name, value) => checkInstance(name, value, MemoryQueueStore, 'a MemoryQueueStore')],
  clock: [unchecked],
  retain: [unchecked],
  codec: [unchecked],
  trace: [checkFunction],
  exposeError: [checkFunction],
})

/** Defaults of the queue options. */
export const QUEUE_DEFAULTS: QueueDefaults = defaults

/** The checks of submission options. Options that a queue has as well are checked the same way. */
const SUBMIT_CHECKS = checksOf<SubmitOptions>({
  ...pick(QUEUE_CHECKS, 'ttl', 'errorTtl', 'attempts', 'timeout', 'conflict', 'abortUnwanted'),
  dedupe: (name, value) => {
    if (value !== false && (typeof value !== 'string' || value === ''))
      throw expectedError(name, 'a key or false', value)
  },
  delay: (name, value) => checkNumber(name, value, 0, MAX_DELAY),
  priority: (name, value) => value === 0 || checkWhole(name, value, MAX_PRIORITY),
  lifo: checkFlag,
  backoff: (_, value) => checkBackoff(value),
  signal: checkSignal,
  onProgress: checkFunction,
})

/** Checks the options of a submission. Throws TypeError. */
export function checkSubmitOptions(options: SubmitOptions): void {
  checkOptions(options, SUBMIT_CHECKS)
}

/** Checks the options of a worker and fills in the defaults. Throws TypeError. */
export function resolveProcessOptions(options: ProcessOptions): { concurrency: number } {
  checkFields('options', options, ['concurrency'])
  const { concurrency = 1 } = options
  return { concurrency: checkWhole('concurrency', concurrency, MAX_CONCURRENCY) }
}

/** Checks the options of a queue and fills in the defaults. Throws TypeError. */
export function resolveQueueOptions(given: QueueOptions): ResolvedQueueOptions {
  checkOptions(given, QUEUE_CHECKS)
  const options = withDefaults(given, QUEUE_DEFAULTS)
  return {
    ...options,
    lease: checkLease(options.lease),
    retain: resolveRetain(given.retain ?? {}),
    codec: checkCodec(given.codec ?? jsonCodec),
    trace: given.trace,
    exposeError: given.exposeError ?? ((failure) => failure),
    sentWithJob: optionsSentWithJob(given),
  }
}

function optionsSentWithJob({
  ttl,
  errorTtl,
  attempts,
  backoff,
}: QueueOptions): ResolvedQueueOptions['sentWithJob'] {
  return { ttl, errorTtl, attempts, backoff: typeof backoff === 'function' ? undefined : backoff }
}

function resolveRetain(given: RetainOptions): ResolvedQueueOptions['retain'] {
  checkFields('retain', given, ['completed', 'failed'])
  return {
    completed: checkRetention('retain.completed', given.completed ?? false),
    failed: checkRetention('retain.failed', given.failed ?? DEFAULT_DEAD_LETTERS),
  }
}

function checkRetention(name: string, given: Retention | false): Retention {
  if (given === false) return KEEP_NONE
  checkFields(name, given, ['count', 'age'])
  return {
    count: checkWhole(`${name}.count`, given.count, 10_000_000),
    age: Math.round(checkNumber(`${name}.age`, given.age, 1, MAX_DURATION)),
  }
}
