import type { RemoteFailure } from '../errors.ts'
import type { Codec } from '../kernel/codec/codec.ts'
import {
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
import { checkKey, checkPrefix } from '../kernel/redis/keys.ts'
import type { Clock } from '../kernel/time/clock.ts'
import type { ResultCacheOptions } from './cache/result-cache.ts'
import type { OnUnavailable } from './flight/waiter.ts'
import { MemoryStore } from './store/memory-store.ts'

/** What is served although it is over, and to whom. The first two are named as in RFC 5861 and mean the same. ms. */
export interface StaleOptions {
  /**
   * For so long after its end a result is served at once while one processor in the whole fleet renews it; when that
   * fails, what there is goes on.
   * @default 0
   */
  staleWhileRevalidate?: number | undefined
  /**
   * For so long after its end a result is served instead of the failure of the work.
   * @default 0
   */
  staleIfError?: number | undefined
  /**
   * Who has waited so long is given the result that is over, if one is kept (`staleWhileRevalidate` and `staleIfError`
   * say how long), while the work goes on.
   * @default Infinity
   */
  softTimeout?: number | undefined
}

/** Options of a Locker. Durations are ms. */
export interface LockerOptions extends StaleOptions {
  /**
   * Where Redis is: a URL (also as an object), options of ioredis (Sentinel included), an ioredis client or Cluster, which
   * stays yours, or a Connection that several lockers share. Without it, or with null, the locker is embedded: it works
   * within this process alone; an option that is there and undefined warns of that.
   */
  redis?: RedisSource | Connection | null | undefined
  /**
   * A memory store that several lockers share, as several processes share Redis, in tests; or one with bounds of its own.
   * Instead of `redis`.
   */
  store?: MemoryStore | undefined
  /** Another clock than the process's own, for tests that drive the time; of a Connection or a store, their own option. */
  clock?: Clock | undefined
  /**
   * Begins the names of all records. Lockers with the same prefix on the same Redis share their results.
   * @default 'soloflight'
   */
  prefix?: string | undefined
  /**
   * How long a result is kept.
   * @default 1_800_000
   */
  ttl?: number | undefined
  /**
   * Up to this part of `ttl`, 0 to 1, is taken off at random, so that results of one moment do not end at one moment.
   * @default 0
   */
  ttlJitter?: number | undefined
  /**
   * How long failures are kept. 0: those who wait receive it, the next caller tries anew.
   * @default 0
   */
  errorTtl?: number | undefined
  /**
   * How long a processor that gives no sign of life keeps the lock; renewed while it lives. From 100.
   * @default 10_000
   */
  lease?: number | undefined
  /**
   * How long a lease is renewed at most: then it is let go, and replaced as if its holder had died.
   * @default 3_600_000
   */
  maxHold?: number | undefined
  /**
   * How long a caller waits at most; Infinity is allowed.
   * @default 60_000
   */
  timeout?: number | undefined
  /**
   * How long Redis may be silent before a request fails; counted once, from the beginning of an outage.
   * @default 2_000
   */
  unavailableAfter?: number | undefined
  /**
   * What happens then, and at once from then on until the connection is back: 'fail' rejects with UnavailableError;
   * 'local' does the work once in this process, for this process alone; 'cached' serves what this process's cache has,
   * fresh or within `staleIfError`, though an invalidation elsewhere may not have been heard, and otherwise fails;
   * 'cached-local' does that, and otherwise the work, as 'local'.
   * @default 'fail'
   */
  onUnavailable?: OnUnavailable | undefined
  /**
   * With 'local' and 'cached-local': works at once in this process while Redis is away; more reject with OverloadedError.
   * @default Infinity
   */
  maxUnshared?: number | undefined
  /**
   * Whether a waiter replaces a processor that died, lost its lease or was let go at `maxHold`. Otherwise those who wait
   * reject with LockTimeoutError. One that releases or closes hands over to them all the same.
   * @default true
   */
  takeover?: boolean | undefined
  /**
   * Works that run at once in this process; the others keep their lease while they wait for their turn.
   * @default Infinity
   */
  concurrency?: number | undefined
  /**
   * Results kept in this process, at most so many and so many bytes (see {@link ResultCacheOptions}); they are dropped when they are invalidated anywhere.
   * Callers are handed the same object: treat it as read-only. `false`: none, and what S4 promises holds strictly.
   * @default { max: 10_000, maxSize: 67_108_864 }
   */
  cache?: ResultCacheOptions | false | undefined
  /**
   * How values become bytes. The same for all lockers that share results: what another codec wrote is computed anew.
   * @default jsonCodec
   */
  codec?: Codec | undefined
  /** The trace context (W3C traceparent) of the present work, for the spans of those who wait to link to. */
  trace?: () => string | undefined
  /**
   * Decides what of a failure leaves this process: what it returns is sent to all who wait, as it is. `failure` is what is
   * sent by default: name, message, code, own fields of plain data, and the same of causes. URLs in texts are masked
   * (`***@`), and at any depth these fields are left out, whatever their case, `-`, `_` and `$`: `command`, `args`,
   * `arguments`, `argv`, `cmd`, `escapedCommand`, `spawnargs`, `spawnfile`, `env`, `stdin`, `stdout`, `stderr`, `stdio`,
   * `output`; `sql`, `query`, `internalQuery`, `where`, `detail`, `parameters`, `params`, `bindings`, `values`, `keyValue`,
   * `statement`, `op`, `document`; `config`, `options`, `settings`, `auth`, `pass`, `jwt`, `bearer`, `session`, `sessionId`,
   * `connection`, `connectionString`, `dsn`, `client`, `socket`; `request`, `req`, `response`, `res`, `errorResponse`,
   * `headers`, `rawHeaders`, `rawPacket`, `body`, `rawBody`, `metadata`; `url`, `uri`, `href`, `input`, `base`; and all
   * whose names contain `passw`, `passphrase`, `pwd`, `secret`, `token`, `authoriz`, `authent`, `credential`, `cookie`,
   * `signature`, `apikey`, `accesskey` or `privatekey`. See docs/secrets.md.
   */
  exposeError?: ((failure: RemoteFailure, error: unknown) => RemoteFailure) | undefined
}

/** Options of one `request`. */
export interface RequestOptions {
  /** Ends the waiting of this caller. */
  signal?: AbortSignal | undefined
  /** ms; the locker's when absent. */
  timeout?: number | undefined
  /** ms; the locker's when absent. */
  lease?: number | undefined
}

/**
 * Options of one `run`. Those that a Locker has too are the locker's when absent. They are checked unless the in-process
 * cache answers: a hit reads only `refresh` and `signal`.
 */
export interface RunOptions extends RequestOptions, StaleOptions {
  /** ms; the locker's when absent. */
  ttl?: number | undefined
  /** ms; the locker's when absent. */
  errorTtl?: number | undefined
  /** Computes anew, whatever there is: the result's work begins after this call. */
  refresh?: boolean | undefined
  /**
   * Names by which the result can be invalidated together with others: `locker.invalidateTags`. Their epochs are read
   * with the claim, and compared whenever the result is served out of Redis: one more command for a tagged hit.
   */
  tags?: readonly string[] | undefined
  /**
   * Whether the signal of the work fires, and its lease is given up, when nobody in any process waits for it any more.
   * @default false
   */
  abortUnwanted?: boolean | undefined
  onUnavailable?: OnUnavailable | undefined
  maxUnshared?: number | undefined
  /**
   * Called with what the work shows by `progress`, in whatever process it runs. What it throws is reported as a warning
   * (E_HOOK).
   */
  onProgress?: ((value: unknown) => void) | undefined
}

/** Options of a `run`, with those that only layers above use. */
export interface AnyRunOptions extends RunOptions {
  /** Only what was begun under a grant above this fence is wanted. */
  afterFence?: number | undefined
}

/** Options of one `runMany`. */
export type RunManyOptions = Omit<RunOptions, 'onProgress' | 'abortUnwanted'>

/** Options of a memoized function. */
export interface MemoizeOptions<Args extends unknown[]> extends Omit<RunOptions, 'signal' | 'tags'> {
  /** The key of a call, out of its arguments. */
  key: (...args: Args) => string
  /** Of the shape of its results: those of another version are another function's. */
  version?: string | number | undefined
  /** The tags of its results, or of a call, out of its arguments. */
  tags?: readonly string[] | ((...args: Args) => readonly string[]) | undefined
}

/** The options that have a plain default. */
export type LockerDefaults = Complete<
  Omit<LockerOptions, 'redis' | 'store' | 'clock' | 'cache' | 'codec' | 'trace' | 'exposeError'>
>

/** The options of a locker, checked and complete. */
export type ResolvedOptions = LockerDefaults & { cache: Complete<ResultCacheOptions> | false }

const CACHE_DEFAULTS: Complete<ResultCacheOptions> = { max: 10_000, maxSize: 64 * 1024 * 1024 }

/** The most results that lru-cache lays out memory for. */
const MAX_CACHED = 2 ** 24

/** What can be done while Redis is away. */
export const ON_UNAVAILABLE: readonly OnUnavailable[] = ['fail', 'local', 'cached', 'cached-local']

/** Tags of one result. */
const MAX_TAGS = 100

const { checks: LOCKER_CHECKS, defaults } = columnsOf<LockerOptions, LockerDefaults>({
  prefix: [(_, value) => checkPrefix(value), 'soloflight'],
  ttl: [checkDuration, 30 * 60_000],
  ttlJitter: [(name, value) => checkNumber(name, value, 0, 1), 0],
  errorTtl: [checkDuration, 0],
  lease: [(_, value) => checkLease(value), 10_000],
  maxHold: [(name, value) => checkDuration(name, value, { min: 1, infinite: true }), 60 * 60_000],
  timeout: [checkTimeout, 60_000],
  unavailableAfter: [(name, value) => checkDuration(name, value, { min: 1 }), 2_000],
  onUnavailable: [(name, value) => checkChoice(name, value, ON_UNAVAILABLE), 'fail'],
  maxUnshared: [(name, value) => checkCount(name, value, 0), Number.POSITIVE_INFINITY],
  staleWhileRevalidate: [checkDuration, 0],
  staleIfError: [checkDuration, 0],
  softTimeout: [checkTimeout, Number.POSITIVE_INFINITY],
  takeover: [checkFlag, true],
  concurrency: [(name, value) => checkCount(name, value, 1), Number.POSITIVE_INFINITY],
  redis: [unchecked],
  store: [(name, value) => checkInstance(name, value, MemoryStore, 'a MemoryStore')],
  clock: [unchecked],
  cache: [unchecked],
  codec: [unchecked],
  trace: [checkFunction],
  exposeError: [checkFunction],
})

/** Everything that is not said otherwise. */
export const LOCKER_DEFAULTS: LockerDefaults = defaults

/** How each option of a call is checked: those that a locker has too, as the locker's are. */
const RUN_CHECKS = checksOf<AnyRunOptions>({
  ...pick(LOCKER_CHECKS, 'ttl', 'errorTtl', 'lease', 'timeout', 'onUnavailable', 'maxUnshared'),
  ...pick(LOCKER_CHECKS, 'staleWhileRevalidate', 'staleIfError', 'softTimeout'),
  signal: checkSignal,
  refresh: checkFlag,
  onProgress: checkFunction,
  tags: (_, value) => checkTags(value),
  abortUnwanted: checkFlag,
  afterFence: checkDuration,
})

/** Checks the options of a locker and fills in the defaults. Throws TypeError. */
export function resolveOptions(given: LockerOptions): ResolvedOptions {
  checkOptions(given, LOCKER_CHECKS)
  const options = withDefaults(given, LOCKER_DEFAULTS)
  return { ...options, lease: checkLease(options.lease), cache: resolveCache(given.cache) }
}

function resolveCache(given: ResultCacheOptions | false | undefined): Complete<ResultCacheOptions> | false {
  if (given === false) return false
  if (given === undefined) return CACHE_DEFAULTS
  checkFields('cache', given, Object.keys(CACHE_DEFAULTS))
  return {
    max: checkWhole('cache.max', given.max ?? CACHE_DEFAULTS.max, MAX_CACHED),
    maxSize: checkWhole('cache.maxSize', given.maxSize ?? CACHE_DEFAULTS.maxSize, Number.MAX_SAFE_INTEGER),
  }
}

/** Checks the options of a `run` or `request`. Throws TypeError. */
export function checkRunOptions(options: AnyRunOptions): void {
  checkOptions(options, RUN_CHECKS)
}

/** Checks tags: each is named as a key is. */
export function checkTags(tags: unknown): void {
  if (!Array.isArray(tags) || tags.length > MAX_TAGS) {
    throw new TypeError(`Expected \`tags\` to be an array of at most ${MAX_TAGS} strings`)
  }
  for (const tag of tags) checkKey(tag, 'tag')
}

/** Checks the version of a memoized function; '' when it has none. */
export function checkVersion(version: unknown): string {
  if (version === undefined) return ''
  if ((typeof version === 'string' && version !== '') || Number.isFinite(version)) return String(version)
  throw expectedError('version', 'a number or a string with something in it', version)
}
