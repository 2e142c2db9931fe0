import type { RemoteFailure } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import {
  checkDuration,
  checkFlag,
  checkLease,
  checkOptions,
  checkSignal,
  checkTimeout,
  expectedError,
  integerUpTo,
  type OptionTable,
  oneOf,
  withDefaults,
} from '../../kernel/options.ts'
import type { AsyncContext, Clock } from '../../kernel/time.ts'
import type { WorkScheduler } from '../../kernel/work-scheduler.ts'
import type { Counters } from '../locker-context.ts'
import type { OnUnavailable } from '../options.ts'
import type { LogStore } from './log/log-store.ts'
import type { StreamSpace } from './stream-record.ts'

/** The context that the work of a stream receives. */
export interface StreamContext {
  /** The key of the stream. */
  readonly key: string
  /**
   * Aborts with LeaseLostError when the lease is lost, with ClosedError when the locker is closed, and with AbortedError
   * when no reader is left and `abortUnwanted` is set. The generator's `return` is called as well.
   */
  readonly signal: AbortSignal
  /** Fencing token of the grant. It only grows, so a store can refuse writes with an older one. 0 when unshared. */
  readonly fence: number
  /** Whether the chunks reach other processes. */
  readonly shared: boolean
  /** Replaces the option `ttl`: how long the complete stream is kept, ms. May be called until the work ends. */
  setTtl(ms: number): void
}

/**
 * The chunks of a stream: an async generator, any other iterable, or a web ReadableStream. Strings and typed arrays are
 * refused, since they would iterate as characters or numbers.
 */
export type StreamSource<T> = AsyncIterable<T> | (Iterable<T> & object & { BYTES_PER_ELEMENT?: never })

/** Produces a stream. */
export type StreamWork<T> = (context: StreamContext) => StreamSource<T> | PromiseLike<StreamSource<T>>

/**
 * Options of one `stream`. Durations are ms. `lease`, `ttl`, `errorTtl`, `maxBytes` and `abortUnwanted` take effect for the
 * caller whose work produces the stream.
 */
export interface StreamOptions {
  /** Ends this reader, with AbortedError. */
  signal?: AbortSignal | undefined
  /** Longest wait for one chunk, also the first. Ends this reader, with TimeoutError. @default the locker's */
  timeout?: number | undefined
  /** Lease of the producer. @default the locker's */
  lease?: number | undefined
  /** How long the complete stream is kept for later callers. @default the locker's */
  ttl?: number | undefined
  /** How long a failed stream is kept. @default the locker's */
  errorTtl?: number | undefined
  /** As the locker's option, for this reader. @default the locker's */
  onUnavailable?: 'fail' | 'local' | undefined
  /**
   * Most bytes of encoded chunks that are kept. Beyond it the oldest are removed: new readers cannot join, and a reader that is
   * further behind is interrupted.
   * @default 16_777_216
   */
  maxBytes?: number | undefined
  /**
   * Aborts the work when no reader is left in any process.
   * @default false
   */
  abortUnwanted?: boolean | undefined
}

/** Options of one `follow`. Durations are ms. */
export interface FollowOptions {
  /** Number of the first chunk; they count from 0. @default 0 */
  from?: number | undefined
  /**
   * The production whose chunks before `from` were received: the `fence` of one of them. Then chunks of another production
   * are never mixed with them: the reader is interrupted instead. @default any production
   */
  fence?: number | undefined
  /** Ends this reader, with AbortedError. */
  signal?: AbortSignal | undefined
  /** Longest wait for one chunk, also the first. Ends this reader, with TimeoutError. @default the locker's */
  timeout?: number | undefined
  /** How long it waits for a stream and its producer. Then it ends, with TimeoutError. @default `timeout` */
  wait?: number | undefined
}

/** A chunk of a stream that is followed. */
export interface FollowedChunk<T> {
  /** Counts from 0. */
  readonly number: number
  /** Identifies its production: the fencing token of its producer. */
  readonly fence: number
  readonly value: T
}

/** The return value of `follow`. */
export interface StreamFollowing<T>
  extends AsyncIterableIterator<FollowedChunk<T>, undefined>,
    AsyncDisposable {
  /** Resolves when the stream was found: it is produced, or complete. Otherwise rejects as reading would. */
  located(): Promise<void>
}

/** The options of one `follow`, validated and complete. `lease`: the expected lease of the producer, ms. */
export interface ResolvedFollowOptions {
  readonly from: number
  readonly fence: number | undefined
  readonly signal: AbortSignal | undefined
  readonly timeout: number
  readonly wait: number
  readonly lease: number
}

/** The options of a locker that are defaults of its streams. */
export interface StreamDefaults {
  timeout: number
  lease: number
  ttl: number
  errorTtl: number
  onUnavailable: OnUnavailable
}

/** The options of one stream, validated and complete. */
export interface ResolvedStreamOptions extends StreamDefaults {
  onUnavailable: 'fail' | 'local'
  signal: AbortSignal | undefined
  maxBytes: number
  abortUnwanted: boolean
}

/** Default of `maxBytes`. */
const DEFAULT_MAX_BYTES = 16 * 1024 * 1024

const STREAM_OPTIONS: OptionTable<StreamOptions> = {
  signal: [checkSignal],
  timeout: [checkTimeout],
  lease: [checkLease],
  ttl: [checkDuration],
  errorTtl: [checkDuration],
  onUnavailable: [oneOf(['fail', 'local'])],
  maxBytes: [integerUpTo(Number.MAX_SAFE_INTEGER)],
  abortUnwanted: [checkFlag],
}

/** A locker's policy without its cache: chunks are not cached in the process. */
function unavailablePolicy({ onUnavailable }: StreamDefaults): 'fail' | 'local' {
  return onUnavailable === 'local' || onUnavailable === 'cached-local' ? 'local' : 'fail'
}

/** Validates the options of one stream and fills in the defaults. @throws TypeError */
export function resolveStreamOptions(
  options: StreamOptions,
  defaults: StreamDefaults,
): ResolvedStreamOptions {
  checkOptions(options, STREAM_OPTIONS)
  const { timeout, lease, ttl, errorTtl } = defaults
  const onUnavailable = unavailablePolicy(defaults)
  const fallbacks = {
    timeout,
    lease,
    ttl,
    errorTtl,
    onUnavailable,
    maxBytes: DEFAULT_MAX_BYTES,
    abortUnwanted: false,
  }
  const resolved = withDefaults<Omit<ResolvedStreamOptions, 'signal'>>(options, fallbacks)
  return { ...resolved, lease: Math.ceil(resolved.lease), signal: options.signal }
}

const FOLLOW_OPTIONS: OptionTable<FollowOptions> = {
  from: [checkPosition],
  fence: [integerUpTo(Number.MAX_SAFE_INTEGER)],
  signal: [checkSignal],
  timeout: [checkTimeout],
  wait: [checkTimeout],
}

function checkPosition(name: string, value: unknown): void {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return
  throw expectedError(name, 'a whole number from 0', value)
}

/** Validates the options of one `follow` and fills in the defaults. @throws TypeError */
export function resolveFollowOptions(
  options: FollowOptions,
  { timeout: standard, lease }: StreamDefaults,
): ResolvedFollowOptions {
  checkOptions(options, FOLLOW_OPTIONS)
  const { from = 0, fence, signal, timeout = standard, wait = timeout } = options
  return { from, fence, signal, timeout, wait, lease }
}

/** What streams use of their locker. */
export interface StreamHost {
  readonly space: StreamSpace
  readonly clock: Clock
  /** Prefix of the names of shared logs. */
  readonly prefix: string
  /** Shared logs. */
  readonly logs: LogStore
  /** Encodes chunks. */
  readonly codec: Codec
  readonly scheduler: WorkScheduler
  readonly counters: Counters
  readonly defaults: StreamDefaults
  /** Longest silence of Redis, ms. */
  readonly unavailableAfter: number
  /** Whether a reader that was delivered nothing may replace a producer that lost its lease. */
  readonly takeover: boolean
  readonly exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
}

export interface StreamCall {
  /** The async context of the call; its work and hooks run in it. */
  readonly context: AsyncContext
  readonly key: string
  readonly work: StreamWork<unknown>
  readonly options: ResolvedStreamOptions
}
