import type { RemoteFailure } from '../errors.ts'
import { type Codec, checkCodec } from '../kernel/codec/codec.ts'
import { checkKey, checkPrefix } from '../kernel/keys.ts'
import {
  type Complete,
  checkDuration,
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
  timeoutFrom,
  unchecked,
  withDefaults,
} from '../kernel/options.ts'
import type { RedisSource } from '../kernel/redis/client.ts'
import type { Connection } from '../kernel/redis/connection.ts'
import type { Clock } from '../kernel/time.ts'
import type { ResultCacheOptions } from './cache/result-cache.ts'
import { MemoryStore } from './store/memory-store.ts'

/** The behaviour of a call while Redis is unavailable. */
export type OnUnavailable = 'fail' | 'local' | 'cached' | 'cached-local'

/**
 * When a result may be served although it is stale. `staleWhileRevalidate` and `staleIfError` mean what they mean in RFC
 * 5861. Durations are ms, and count from the end of the result's `ttl`.
 */
export interface StaleOptions {
  /**
   * For how long a stale result is served at once, while one processor in all processes revalidates it. If that fails, the stale
   * result is still served.
   * @default 0
   */
  staleWhileRevalidate?: number | undefined
  /**
   * For how long a stale result is served instead of the failure of the work.
   * @default 0
   */
  staleIfError?: number | undefined
  /**
   * How long a caller waits before it is served a stale result, if one is kept. It is kept for the longer of
   * `staleWhileRevalidate` and `staleIfError`. The work goes on.
   * @default Infinity
   */
  softTimeout?: number | undefined
}

/** Options of a Locker. Durations are ms. */
export interface LockerOptions extends StaleOptions {
  /**
   * Where Redis is: a URL (a string or an object), options of ioredis (with Sentinel too), an ioredis client or Cluster, or
   * a Connection that several lockers share. A client, Cluster or Connection is never closed by the locker. Without it, or
   * with null, the locker is embedded: it works within this process alone. `redis: undefined` does the same, and warns.
   */
  redis?: RedisSource | Connection | null | undefined
  /**
   * Instead of `redis`: a memory store with bounds of its own, or one that several lockers share, as processes share Redis.
   */
  store?: MemoryStore | undefined
  /** A clock for tests. With a Connection or a `store`, set it there. */
  clock?: Clock | undefined
  /**
   * Prefix of all keys in Redis. Lockers with the same prefix on the same Redis share their results.
   * @default 'soloflight'
   */
  prefix?: string | undefined
  /**
   * How long a result is fresh.
   * @default 1_800_000
   */
  ttl?: number | undefined
  /**
   * A random part of `ttl`, up to this one (0 to 1), is taken off, so that results of one moment do not expire together.
   * @default 0
   */
  ttlJitter?: number | undefined
  /**
   * How long a failure is kept. With 0 the waiting callers get it, and the next caller tries again.
   * @default 0
   */
  errorTtl?: number | undefined
  /**
   * How long a processor keeps its lease without a renewal. A live processor renews it. At least 100.
   * @default 10_000
   */
  lease?: number | undefined
  /**
   * How long a lease is renewed at most. Then it is ended as if its holder had died.
   * @default 3_600_000
   */
  maxHold?: number | undefined
  /**
   * How long a caller waits at most. May be Infinity.
   * @default 60_000
   */
  timeout?: number | undefined
  /**
   * How long Redis may give no reply before a call fails, counted once from the beginning of an outage.
   * @default 2_000
   */
  unavailableAfter?: number | undefined
  /**
   * What a call does after `unavailableAfter`, and at once from then on until the connection is back:
   *
   * - `'fail'`: rejects with UnavailableError.
   * - `'local'`: runs the work in this process, for this process alone.
   * - `'cached'`: serves the result that this process's cache has, fresh or within `staleIfError`, although an invalidation
   *   elsewhere may have been missed; without one, fails.
   * - `'cached-local'`: as `'cached'`; without a result, as `'local'`.
   * @default 'fail'
   */
  onUnavailable?: OnUnavailable | undefined
  /**
   * With `'local'` and `'cached-local'`: works that run at once in this process while Redis is unavailable. More calls
   * reject with OverloadedError.
   * @default Infinity
   */
  maxUnshared?: number | undefined
  /**
   * Whether a waiter replaces a processor that died, lost its lease, or held it for `maxHold`. With false, the waiters
   * reject with LockTimeoutError instead. A processor that releases its lease or closes hands it to a waiter in any case.
   * @default true
   */
  takeover?: boolean | undefined
  /**
   * Works that run at once in this process. The others keep their leases while they wait for a slot.
   * @default Infinity
   */
  concurrency?: number | undefined
  /**
   * Bounds of the cache of results in this process, see {@link ResultCacheOptions}. Results leave it when they are
   * invalidated in any process. Callers receive the same object: treat it as read-only. With false there is no cache, and
   * `invalidate` is strict: once it has resolved, no caller receives an older result.
   * @default { max: 10_000, maxSize: 67_108_864 }
   */
  cache?: ResultCacheOptions | false | undefined
  /**
   * Encodes and decodes values. Lockers that share results must use the same codec: a result of another codec is computed again.
   * @default jsonCodec
   */
  codec?: Codec | undefined
  /** Returns the trace context (W3C traceparent) of the present work, to which the spans of waiters can link. */
  trace?: () => string | undefined
  /**
   * Decides which parts of a failure leave this process. The returned object is sent to all waiters, unchanged. `failure` is what
   * is sent by default: name, message, code, own fields of plain data, and the same of causes. URLs in texts are masked (`***@`),
   * and at any depth these fields are left out, whatever their case, `-`, `_` and `$`: `command`, `args`, `arguments`, `argv`,
   * `cmd`, `escapedCommand`, `spawnargs`, `spawnfile`, `env`, `stdin`, `stdout`, `stderr`, `stdio`, `output`; `sql`, `query`,
   * `internalQuery`, `where`, `detail`, `parameters`, `params`, `bindings`, `values`, `keyValue`, `statement`, `op`, `document`;
   * `config`, `options`, `settings`, `auth`, `pass`, `jwt`, `bearer`, `session`, `sessionId`, `connection`, `connectionString`,
   * `dsn`, `client`, `socket`; `request`, `req`, `response`, `res`, `errorResponse`, `headers`, `rawHeaders`, `rawPacket`,
   * `body`, `rawBody`, `metadata`; `url`, `uri`, `href`, `input`, `base`; and all whose names contain `passw`, `passphrase`,
   * `pwd`, `secret`, `token`, `authoriz`, `authent`, `credential`, `cookie`, `signature`, `apikey`, `accesskey` or `privatekey`.
   * See docs/secrets.md.
   */
  exposeError?: ((failure: RemoteFailure, error: unknown) => RemoteFailure) | undefined
}

/** Options of one `request`. Those that a Locker has too default to the locker's. Durations are ms. */
export interface RequestOptions {
  /** Ends the waiting of this caller. */
  signal?: AbortSignal | undefined
  timeout?: number | undefined
  lease?: number | undefined
}

/** Options of a `request` for a lease that is held by its token. */
export interface TokenRequestOptions extends RequestOptions {
  /**
   * False: this process does not renew the lease, or release it when it closes. It expires unless the owner of its `token` renews
   * it, in any process.
   */
  renew: false
}

/** Options of one `wait`. Those that a Locker has too default to the locker's. Durations are ms. */
export type WaitOptions = Omit<RequestOptions, 'lease'>

/**
 * Options of one `run`. Those that a Locker has too default to the locker's. They are validated unless the in-process cache
 * answers: a hit reads only `refresh` and `signal`.
 */
export interface RunOptions extends RequestOptions, StaleOptions {
  ttl?: number | undefined
  errorTtl?: number | undefined
  /**
   * Ignores existing results: the work of the result begins after this call.
   * @default false
   */
  refresh?: boolean | undefined
  /**
   * Names by which `locker.invalidateTags` invalidates the result together with others, at most 100. A hit in Redis on a
   * tagged result costs one more command, which reads the versions of the tags.
   */
  tags?: readonly string[] | undefined
  /**
   * Whether the work is cancelled when no caller in any process waits for it any longer: its signal aborts, and its lease is
   * released.
   * @default false
   */
  abortUnwanted?: boolean | undefined
  onUnavailable?: OnUnavailable | undefined
  maxUnshared?: number | undefined
  /**
   * Receives the values that the work passes to `progress`, in any process. An error that it throws is reported as a warning
   * (E_HOOK).
   */
  onProgress?: ((value: unknown) => void) | undefined
}

/** Options of a `run`, with those that only the layers above use. */
export interface AnyRunOptions extends RunOptions {
  /** Only results of grants after this fence. */
  afterFence?: number | undefined
  /** Called each time that the store has no result: whether a process holds the lease. */
  onParked?: ((isHeld: boolean) => void) | undefined
}

/** Options of a `request`, with those that only the layers above use. */
export interface AnyRequestOptions extends AnyRunOptions {
  renew?: boolean | undefined
}

/** Options of a `wait`, with those that only the layers above use. */
export type AnyWaitOptions = Pick<AnyRunOptions, 'signal' | 'timeout' | 'onParked'>

/** Options of one `runMany`. */
export type RunManyOptions = Omit<RunOptions, 'onProgress' | 'abortUnwanted'>

/** Options of a memoized function. */
export interface MemoizeOptions<Args extends unknown[]> extends Omit<RunOptions, 'signal' | 'tags'> {
  /** Returns the key of a call. */
  key: (...args: Args) => string
  /** Version of the shape of the results. Versions do not share results. */
  version?: string | number | undefined
  /** Tags of all results, or a function that returns those of a call. */
  tags?: readonly string[] | ((...args: Args) => readonly string[]) | undefined
}

/** The options whose default is a constant. */
export type LockerDefaults = Complete<
  Omit<LockerOptions, 'redis' | 'store' | 'clock' | 'cache' | 'codec' | 'trace' | 'exposeError'>
>

/** The options of a locker, validated, with their defaults. */
export type ResolvedOptions = LockerDefaults & { cache: Complete<ResultCacheOptions> | false }

/** lru-cache allocates memory for `max` entries at once: a larger number is a mistake. */
const MAX_CACHED = 2 ** 24

const CACHE_OPTIONS: OptionTable<ResultCacheOptions, Complete<ResultCacheOptions>> = {
  max: [integerUpTo(MAX_CACHED), 10_000],
  maxSize: [integerUpTo(Number.MAX_SAFE_INTEGER), 64 * 1024 * 1024],
}

const CACHE_DEFAULTS: Complete<ResultCacheOptions> = defaultsOf(CACHE_OPTIONS)

/** The values of `onUnavailable`. */
export const ON_UNAVAILABLE: readonly OnUnavailable[] = ['fail', 'local', 'cached', 'cached-local']

/** Most tags of one result. */
const MAX_TAGS = 100

const LOCKER_OPTIONS: OptionTable<LockerOptions, LockerDefaults> = {
  prefix: [checkPrefix, 'soloflight'],
  ttl: [checkDuration, 30 * 60_000],
  ttlJitter: [numberBetween(0, 1), 0],
  errorTtl: [checkDuration, 0],
  lease: [checkLease, 10_000],
  maxHold: [timeoutFrom(1), 60 * 60_000],
  timeout: [checkTimeout, 60_000],
  unavailableAfter: [durationFrom(1), 2_000],
  onUnavailable: [oneOf(ON_UNAVAILABLE), 'fail'],
  maxUnshared: [countFrom(0), Number.POSITIVE_INFINITY],
  staleWhileRevalidate: [checkDuration, 0],
  staleIfError: [checkDuration, 0],
  softTimeout: [checkTimeout, Number.POSITIVE_INFINITY],
  takeover: [checkFlag, true],
  concurrency: [countFrom(1), Number.POSITIVE_INFINITY],
  redis: [unchecked],
  store: [instanceOf(MemoryStore, 'a MemoryStore')],
  clock: [unchecked],
  cache: [falseOr(objectOf(CACHE_OPTIONS))],
  codec: [checkCodec],
  trace: [checkFunction],
  exposeError: [checkFunction],
}

/** The defaults of a locker. */
export const LOCKER_DEFAULTS: LockerDefaults = defaultsOf(LOCKER_OPTIONS)

/** Options that a locker has as well are checked the same way. */
export const RUN_OPTIONS: OptionTable<AnyRunOptions> = {
  ...pick(LOCKER_OPTIONS, 'ttl', 'errorTtl', 'lease', 'timeout', 'onUnavailable', 'maxUnshared'),
  ...pick(LOCKER_OPTIONS, 'staleWhileRevalidate', 'staleIfError', 'softTimeout'),
  signal: [checkSignal],
  refresh: [checkFlag],
  onProgress: [checkFunction],
  tags: [(_, value) => checkTags(value)],
  abortUnwanted: [checkFlag],
  afterFence: [checkDuration],
  onParked: [checkFunction],
}

export const REQUEST_OPTIONS: OptionTable<AnyRequestOptions> = { ...RUN_OPTIONS, renew: [oneOf([false])] }

export const WAIT_OPTIONS: OptionTable<AnyWaitOptions> = pick(RUN_OPTIONS, 'signal', 'timeout', 'onParked')

/** Checks the options of a locker and fills in the defaults. @throws TypeError */
export function resolveOptions(given: LockerOptions): ResolvedOptions {
  checkOptions(given, LOCKER_OPTIONS)
  const options = withDefaults(given, LOCKER_DEFAULTS)
  const cache = given.cache !== false && withDefaults(given.cache ?? {}, CACHE_DEFAULTS)
  return { ...options, lease: Math.ceil(options.lease), cache }
}

/** Checks tags. A tag is any string that a key may be. Throws TypeError. */
export function checkTags(tags: unknown): void {
  if (!Array.isArray(tags) || tags.length > MAX_TAGS) {
    throw new TypeError(`Expected \`tags\` to be an array of at most ${MAX_TAGS} strings`)
  }
  for (const tag of tags) checkKey(tag, 'tag')
}

/** Checks the version of a memoized function. Returns it as a string, '' when there is none. Throws TypeError. */
export function checkVersion(version: unknown): string {
  if (version === undefined) return ''
  if ((typeof version === 'string' && version !== '') || Number.isFinite(version)) return String(version)
  throw expectedError('version', 'a number or a non-empty string', version)
}
