import type { RemoteFailure } from '../errors.ts'
import { type Codec, checkCodec, jsonCodec } from '../kernel/codec/codec.ts'
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
import { checkPrefix } from '../kernel/redis/keys.ts'
import type { Clock } from '../kernel/time/clock.ts'
import { MemoryQueueStore } from './store/memory-store.ts'
import { type Conflict, MAX_DELAY, type Retention } from './store/store.ts'
import { type Backoff, type BackoffFunction, checkBackoff } from './working/backoff.ts'

/** What a submission may say, and a queue for all of its submissions. Durations are ms. */
export interface SharedJobOptions {
  /**
   * How long a result is kept for later submissions of the same job. A job with `dedupe: false` has none: its default is 0.
   * @default 1_800_000
   */
  ttl?: number | undefined
  /**
   * How long a failure is kept for them.
   * @default 0
   */
  errorTtl?: number | undefined
  /**
   * How often a job is tried until it has failed.
   * @default 1
   */
  attempts?: number | undefined
  /**
   * The longest wait of a submitter; Infinity is allowed. The job itself goes on.
   * @default 60_000
   */
  timeout?: number | undefined
  /**
   * When the same `dedupe` key is used with another payload while the job runs or its outcome is kept: 'reject' with
   * ConflictError, 'join' it all the same, or 'rerun': once more, after the current run, with the newest payload.
   * @default 'reject'
   */
  conflict?: Conflict | undefined
  /**
   * Cancel a job when the last submitter that waited for it has left.
   * @default false
   */
  abortUnwanted?: boolean | undefined
}

/** Options of one submission. Durations are ms. */
export interface SubmitOptions extends SharedJobOptions {
  /** What makes two jobs the same: by default their payload; a key of your own; or `false`: nothing does. */
  dedupe?: string | false | undefined
  /** It may run after so long. */
  delay?: number | undefined
  /**
   * Higher runs first, 0 to 1_000_000.
   * @default 0
   */
  priority?: number | undefined
  /** Before those that wait already. */
  lifo?: boolean | undefined
  /** Between attempts. By default, what the queue that runs the job says. */
  backoff?: Backoff | undefined
  /** Ends the waiting of this submitter. */
  signal?: AbortSignal | undefined
  /** Called with what the handler shows by `job.progress`, in whatever process it runs. */
  onProgress?: ((value: unknown) => void) | undefined
}

/** What is kept of finished jobs, to be listed. */
export interface RetainOptions {
  /** @default false: a completed job is forgotten with its ttl */
  completed?: Retention | false | undefined
  /** Dead letters: what has failed for good, to be looked at and retried. @default { count: 1_000, age: 604_800_000 } */
  failed?: Retention | false | undefined
}

/** Options of a RedisQueue. Durations are ms. */
export interface QueueOptions extends SharedJobOptions {
  /**
   * Where Redis is: a URL (also as an object), options of ioredis (Sentinel included), an ioredis client or Cluster, which
   * stays yours, or a Connection that several queues and lockers share. Without it, or with null, the queue is embedded: it works
   * within this process alone; an option that is there and undefined warns of that.
   */
  redis?: RedisSource | Connection | null | undefined
  /** A memory store that several queues share, as several processes share Redis: for tests. Instead of `redis`. */
  store?: MemoryQueueStore | undefined
  /** Another clock than the process's own, for tests that drive the time; of a Connection or a store, their own option. */
  clock?: Clock | undefined
  /** Begins the names of all keys. @default 'soloflight' */
  prefix?: string | undefined
  /** How long a worker that gives no sign of life keeps a job; renewed while it lives. From 100. @default 10_000 */
  lease?: number | undefined
  /** How long an attempt may take at most: then it has failed. @default 3_600_000 */
  maxHold?: number | undefined
  /** How long Redis may be silent before a call fails with UnavailableError. @default 2_000 */
  unavailableAfter?: number | undefined
  /** Between the attempts of jobs that run here, unless their submission says otherwise. @default 0 */
  backoff?: Backoff | BackoffFunction | undefined
  /** How often a job may lose its worker; once more, and it has failed. @default 3 */
  maxStalls?: number | undefined
  /** What is kept of jobs that were finished here. */
  retain?: RetainOptions | undefined
  /** Largest payload, in bytes of JSON. @default 1_048_576 */
  maxPayload?: number | undefined
  /** What happens to a job for whose command no worker is known: it waits for one, or is refused. @default 'keep' */
  unknownCommands?: 'keep' | 'refuse' | undefined
  /** How results become bytes. The same for all queues of a name. @default jsonCodec */
  codec?: Codec | undefined
  /** The trace context (W3C traceparent) of the submitter, for the span of the handler to link to. */
  trace?: (() => string | undefined) | undefined
  /** Decides what of a failure leaves this process, and is kept with the job: as the option of a Locker. */
  exposeError?: ((failure: RemoteFailure, error: unknown) => RemoteFailure) | undefined
}

/** Options of a worker. */
export interface ProcessOptions {
  /** Jobs of the command at once in this process, 1 to 10_000. @default 1 */
  concurrency?: number | undefined
}

/** The options that have a plain default. */
export type QueueDefaults = Complete<
  Omit<QueueOptions, 'redis' | 'store' | 'clock' | 'retain' | 'codec' | 'trace' | 'exposeError'>
>

/** The options of a queue, checked and complete. */
export interface ResolvedQueueOptions extends QueueDefaults {
  retain: { completed: Retention; failed: Retention }
  codec: Codec
  trace: (() => string | undefined) | undefined
  exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
  /** What was said, of what goes with a job to wherever it runs. */
  given: Pick<SubmitOptions, 'ttl' | 'errorTtl' | 'attempts' | 'backoff'>
}

/** How long a delivery may take to be accepted, ms, by the lease. */
export function acceptWithin(lease: number): number {
  return Math.min(2000, lease / 2)
}

const NOTHING: Retention = { count: 0, age: 0 }
const DEAD_LETTERS: Retention = { count: 1_000, age: 7 * 24 * 60 * 60_000 }

const MAX_PRIORITY = 1_000_000
export const MAX_CONCURRENCY = 10_000
/** The longest duration that is a number of ms to every part of the way. */
const MAX_DURATION = 10 * 365 * 24 * 60 * 60_000

/** A duration that goes to the store: a whole number there. */
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

/** Everything that is not said otherwise. */
export const QUEUE_DEFAULTS: QueueDefaults = defaults

/** How each option of a submission is checked: those that a queue has too, as the queue's are. */
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

/** Checks the options of a worker, and fills in the defaults. Throws TypeError. */
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
    given: travelling(given),
  }
}

function travelling({ ttl, errorTtl, attempts, backoff }: QueueOptions): ResolvedQueueOptions['given'] {
  return { ttl, errorTtl, attempts, backoff: typeof backoff === 'function' ? undefined : backoff }
}

function resolveRetain(given: RetainOptions): ResolvedQueueOptions['retain'] {
  checkFields('retain', given, ['completed', 'failed'])
  return {
    completed: checkRetention('retain.completed', given.completed ?? false),
    failed: checkRetention('retain.failed', given.failed ?? DEAD_LETTERS),
  }
}

function checkRetention(name: string, given: Retention | false): Retention {
  if (given === false) return NOTHING
  checkFields(name, given, ['count', 'age'])
  return {
    count: checkWhole(`${name}.count`, given.count, 10_000_000),
    age: Math.round(checkNumber(`${name}.age`, given.age, 1, MAX_DURATION)),
  }
}
