import type { RemoteFailure } from '../errors.ts'
import { type Codec, checkCodec, jsonCodec } from '../kernel/codec/codec.ts'
import { checkPrefix } from '../kernel/keys.ts'
import {
  type Complete,
  checkDuration,
  checkFunction,
  checkLease,
  checkOptions,
  checkSignal,
  checkTimeout,
  countFrom,
  defaultsOf,
  durationFrom,
  expectedError,
  instanceOf,
  integerUpTo,
  type OptionTable,
  oneOf,
  unchecked,
  withDefaults,
} from '../kernel/options.ts'
import type { RedisSource } from '../kernel/redis/client.ts'
import type { Connection } from '../kernel/redis/connection.ts'
import type { Clock } from '../kernel/time.ts'
import { MemoryServices } from './store/memory-store.ts'
import type { ServicesStore } from './store/store.ts'

/** Options of {@link Services}. Durations are ms. */
export interface ServicesOptions {
  /**
   * A URL, options of ioredis, a client or a Connection. Without it, services work within this process alone.
   */
  redis?: RedisSource | Connection | null | undefined
  /** The records of services within this process, shared with other Services objects. */
  store?: MemoryServices | undefined
  /** For tests: the clock without Redis. A Connection or a store has its own `clock` option. */
  clock?: Clock | undefined
  /** Prefix of all Redis keys. @default 'soloflight' */
  prefix?: string | undefined
  /** How long one try of a call may take; Infinity is allowed. @default 60_000 */
  timeout?: number | undefined
  /**
   * Lease of a process that serves, from 100. A live process renews it. When it ends, the process is removed, and its callers are
   * told. @default 5_000
   */
  lease?: number | undefined
  /** A call fails with UnavailableError if Redis does not answer within this time. @default 2_000 */
  unavailableAfter?: number | undefined
  /**
   * Largest arguments, result, chunk, message or setting, in bytes when encoded: up to 16 MiB. Redis ends a subscription for
   * which more than 32 MiB wait (`client-output-buffer-limit pubsub`), and all messages to this process share one.
   * @default 1_048_576
   */
  maxMessage?: number | undefined
  /** Encodes arguments and results. All processes must use the same codec. @default jsonCodec */
  codec?: Codec | undefined
  /** Returns the trace context (W3C traceparent) of the caller. The handler reads it as `call.trace`. */
  trace?: (() => string | undefined) | undefined
  /** Returns the part of an error that leaves this process, like the option of a Locker. */
  exposeError?: ((failure: RemoteFailure, error: unknown) => RemoteFailure) | undefined
}

type ServicesDefaults = Complete<
  Omit<ServicesOptions, 'redis' | 'store' | 'clock' | 'codec' | 'trace' | 'exposeError'>
>

/** Half of what Redis lets wait for a subscription by default: a larger message would end it, for everybody who shares it. */
const MAX_MESSAGE = 16 * 1024 * 1024

const SERVICES_OPTIONS: OptionTable<ServicesOptions, ServicesDefaults> = {
  redis: [unchecked],
  store: [instanceOf(MemoryServices, 'a MemoryServices')],
  clock: [unchecked],
  prefix: [checkPrefix, 'soloflight'],
  timeout: [checkTimeout, 60_000],
  lease: [checkLease, 5_000],
  unavailableAfter: [durationFrom(1), 2_000],
  maxMessage: [integerUpTo(MAX_MESSAGE), 1024 * 1024],
  codec: [checkCodec],
  trace: [checkFunction],
  exposeError: [checkFunction],
}

/** Defaults of the options of Services. */
export const SERVICES_DEFAULTS: ServicesDefaults = defaultsOf(SERVICES_OPTIONS)

/** Validated options, with defaults filled in. */
export interface ResolvedServicesOptions extends ServicesDefaults {
  codec: Codec
  trace: (() => string | undefined) | undefined
  exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
}

/** Checks the options and fills in the defaults. @throws TypeError */
export function resolveServicesOptions(given: ServicesOptions): ResolvedServicesOptions {
  checkOptions(given, SERVICES_OPTIONS)
  return {
    ...withDefaults(given, SERVICES_DEFAULTS),
    codec: given.codec ?? jsonCodec,
    trace: given.trace,
    exposeError: given.exposeError ?? ((failure) => failure),
  }
}

/** What the parts of a Services object share. */
export interface ServicesContext {
  readonly store: ServicesStore
  readonly clock: Clock
  readonly options: ResolvedServicesOptions
  /** Time limit of a call to the store. */
  readonly storeTimeout: number
}

/** Options of {@link Services.register}. */
export interface RegisterOptions {
  /** Calls that run at once in this process. Broadcasts run beyond it. @default Infinity */
  capacity?: number | undefined
  /** Calls beyond `capacity` that wait here, the oldest first. Beyond both, callers get BusyError. @default 0 */
  backlog?: number | undefined
  /** Shown in `list()`. @default '' */
  version?: string | undefined
}

const REGISTER_OPTIONS: OptionTable<RegisterOptions, Complete<RegisterOptions>> = {
  capacity: [countFrom(1), Number.POSITIVE_INFINITY],
  backlog: [countFrom(0), 0],
  version: [checkVersion, ''],
}
const REGISTER_DEFAULTS = defaultsOf(REGISTER_OPTIONS)

function checkVersion(name: string, value: unknown): void {
  if (typeof value !== 'string' || value.length > 128)
    throw expectedError(name, 'a string of up to 128 characters', value)
}

export function resolveRegisterOptions(given: RegisterOptions): Complete<RegisterOptions> {
  checkOptions(given, REGISTER_OPTIONS)
  return withDefaults(given, REGISTER_DEFAULTS)
}

/** How a process is chosen. `local-first`: this process, if it serves the service and has room. */
export type Choice = 'least-busy' | 'local-first'

/** Options of {@link Services.require}. Durations are ms. */
export interface RequireOptions {
  /** How long one try of a call may take; Infinity is allowed. @default that of the Services object */
  timeout?: number | undefined
  /** How long a call waits for a first process that serves the service. @default 0 */
  wait?: number | undefined
  /** @default 'least-busy' */
  choose?: Choice | undefined
}

const REQUIRE_OPTIONS: OptionTable<RequireOptions> = {
  timeout: [checkTimeout],
  wait: [checkTimeout],
  choose: [oneOf(['least-busy', 'local-first'])],
}

export function checkRequireOptions(given: RequireOptions): void {
  checkOptions(given, REQUIRE_OPTIONS)
}

/** Options of calls, for {@link Remote.with}. Durations are ms. */
export interface CallOptions {
  /** How long one try may take; Infinity is allowed. */
  timeout?: number | undefined
  /** How long all tries together may take. */
  within?: number | undefined
  /** Ends the call. The signal of the handler aborts too. */
  signal?: AbortSignal | undefined
  /**
   * Identical calls share one run in all processes, through a Locker. `true`: calls with the same `key` are identical, or without
   * a `key` those with the same arguments; a string: short for `true` with that `key`. For `emit` and `pemit` only.
   */
  dedupe?: true | string | undefined
  /** With `dedupe: true`: calls of the same event with this key are identical, whatever their arguments. */
  key?: string | undefined
  /** With `dedupe`: how long the result is returned to further identical calls. @default 0 */
  ttl?: number | undefined
  /** Called with each value that the handler passes to `call.progress`. Best effort. */
  onProgress?: ((value: unknown) => void) | undefined
}

const CALL_OPTIONS: OptionTable<CallOptions> = {
  timeout: [checkTimeout],
  within: [checkTimeout],
  signal: [checkSignal],
  dedupe: [(name, value) => value === true || checkDedupeKey(name, value)],
  key: [checkDedupeKey],
  ttl: [checkDuration],
  onProgress: [checkFunction],
}

function checkDedupeKey(name: string, value: unknown): void {
  if (typeof value === 'string' && value !== '' && value.length <= 1024) return
  throw expectedError(name, 'a key of 1 to 1,024 characters', value)
}

/** Checks options that are added to earlier ones. Returns all together. @throws TypeError */
export function checkCallOptions(given: CallOptions, earlier: CallOptions): CallOptions {
  checkOptions(given, CALL_OPTIONS)
  const all = { ...earlier, ...given }
  const { dedupe, key, ttl } = all
  if (key !== undefined && dedupe !== true) throw new TypeError('Expected `key` only beside `dedupe: true`')
  if (ttl !== undefined && dedupe === undefined) throw new TypeError('Expected `ttl` only beside `dedupe`')
  return all
}
