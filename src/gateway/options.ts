import { Bus } from '../bus/index.ts'
import { checkPrefix } from '../kernel/keys.ts'
import {
  type Check,
  type Complete,
  checkFlag,
  checkOptions,
  defaultsOf,
  durationFrom,
  expectedError,
  instanceOf,
  integerUpTo,
  type OptionTable,
  oneOf,
  REQUIRED,
  unchecked,
  withDefaults,
} from '../kernel/options.ts'
import type { RedisSource } from '../kernel/redis/client.ts'
import type { Connection } from '../kernel/redis/connection.ts'
import type { Clock } from '../kernel/time.ts'
import type { LockerOptions } from '../locker/index.ts'
import type { QueueOptions } from '../queue/index.ts'
import { Services } from '../services/index.ts'
import { checkPushes, type PushWorkerOptions } from './push/options.ts'

/**
 * Permission of a token. 'read': read jobs, queues and keys, and follow streams and topics. 'submit': post jobs, call services,
 * publish, push and save on the bus. 'work': take and finish jobs, hold keys, consume queues of the bus. 'admin': all of that,
 * and cancel, retry, remove, stop and erase.
 */
export type Scope = 'read' | 'submit' | 'work' | 'admin'

export const SCOPES: readonly Scope[] = ['read', 'submit', 'work', 'admin']

/** A token of a client, and its scopes. */
export interface AccessToken {
  /** The text after `Authorization: Bearer`: letters, digits and `-._~+/`, then any `=`. */
  token: string
  scopes: readonly Scope[]
  /** Name of its holder in audit events: up to 100 characters. Not a secret. */
  name?: string | undefined
}

/** The holder of a token: those of one name are one holder. */
export function tokenHolder(token: AccessToken): unknown {
  return token.name ?? token
}

/** Options of a gateway. Durations are in ms. */
export interface GatewayOptions {
  /**
   * The Redis server, as for a queue: a URL, options of ioredis, a client or Cluster, or a Connection. Without it, or with null,
   * the gateway is embedded: its jobs and keys are in the memory of this process.
   */
  redis?: RedisSource | Connection | null | undefined
  /** For tests: the clock of an embedded gateway. A Connection or a store has its own. */
  clock?: Clock | undefined
  /** Prefix of all Redis keys. @default 'soloflight' */
  prefix?: string | undefined
  /** Options of the queues that the gateway opens. */
  queueOptions?: Omit<QueueOptions, 'redis' | 'prefix' | 'clock' | 'codec'> | undefined
  /** Options of the locker of the gateway. */
  lockerOptions?: Omit<LockerOptions, 'redis' | 'prefix' | 'clock' | 'codec'> | undefined
  /** The services that clients call. It stays open. @default services on the `redis` of the gateway, in memory without it */
  services?: Services | undefined
  /** The bus whose topics and queues clients use. It stays connected. @default a bus on the `redis` of the gateway */
  bus?: Bus | undefined
  /**
   * The accepted tokens. Absent: every request may do everything, so the gateway must not be reachable from other machines. An
   * empty list: no request may do anything.
   */
  tokens?: readonly AccessToken[] | undefined
  /** Names of this host, without a port: requests to another name are refused. @default ['localhost', '127.0.0.1', '[::1]'] */
  hosts?: readonly string[] | undefined
  /** Path below which all routes are, as '/jobs'. @default '' */
  basePath?: string | undefined
  /** Whether `/` is the dashboard. @default true */
  dashboard?: boolean | undefined
  /** Largest body of a request, in bytes. @default 1_048_576 */
  maxBody?: number | undefined
  /** How long the body of a request may take to arrive. @default 30_000 */
  bodyTimeout?: number | undefined
  /** Longest time that a request waits; a longer `wait` is cut to it. @default 60_000 */
  maxWait?: number | undefined
  /** Interval of the comments that keep the connection of an event stream alive. @default 15_000 */
  heartbeat?: number | undefined
  /** Most event streams that are open at once. @default 10_000 */
  maxStreams?: number | undefined
  /** Most WebSockets that are open at once. @default 1_000 */
  maxSockets?: number | undefined
  /** Push workers: the jobs of a queue are posted to a URL. @default [] */
  push?: readonly PushWorkerOptions[] | undefined
}

type Defaulted =
  | 'prefix'
  | 'hosts'
  | 'basePath'
  | 'dashboard'
  | 'maxBody'
  | 'bodyTimeout'
  | 'maxWait'
  | 'heartbeat'
  | 'maxStreams'
  | 'maxSockets'
  | 'push'

/** The options of a gateway with a constant default. */
export type GatewayDefaults = Complete<Pick<GatewayOptions, Defaulted>>

/** Validated options of a gateway, with defaults filled in. */
export interface ResolvedGatewayOptions extends GatewayDefaults {
  tokens: readonly AccessToken[] | undefined
}

const ACCESS_TOKEN: OptionTable<AccessToken> = {
  token: [checkToken, REQUIRED],
  scopes: [listOf(oneOf(SCOPES)), REQUIRED],
  name: [textLike(/^[^\p{C}]{1,100}$/u, '1 to 100 characters')],
}

/** One segment of a path or more. */
const BASE_PATH = /^(?:\/[\w.~-]+)*$/

/** A name or an address, as it stands in a URL: in lower case, an IPv6 address in brackets. */
const HOST = /^(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])$/

/** Longest wait that an option allows, ms: one day. */
const MAX_WAIT = 24 * 60 * 60_000

const GATEWAY_OPTIONS: OptionTable<GatewayOptions, GatewayDefaults> = {
  redis: [unchecked],
  clock: [unchecked],
  prefix: [checkPrefix, 'soloflight'],
  queueOptions: [checkObject],
  lockerOptions: [checkObject],
  services: [instanceOf(Services, 'a Services object')],
  bus: [instanceOf(Bus, 'a Bus')],
  tokens: [listOf((name, value) => checkOptions(value as AccessToken, ACCESS_TOKEN, name))],
  hosts: [
    listOf(textLike(HOST, 'a host name in lower case, without a port')),
    ['localhost', '127.0.0.1', '[::1]'],
  ],
  basePath: [textLike(BASE_PATH, 'a path as "/jobs", or ""'), ''],
  dashboard: [checkFlag, true],
  maxBody: [integerUpTo(512 * 1024 * 1024), 1024 * 1024],
  bodyTimeout: [durationFrom(1), 30_000],
  maxWait: [(name, value) => checkMaxWait(name, value), 60_000],
  heartbeat: [durationFrom(100), 15_000],
  maxStreams: [integerUpTo(1_000_000), 10_000],
  push: [checkPushes, []],
  maxSockets: [integerUpTo(1_000_000), 1_000],
}

/** Defaults of the options of a gateway. */
export const GATEWAY_DEFAULTS: GatewayDefaults = defaultsOf(GATEWAY_OPTIONS)

/** Checks the options of a gateway and fills in the defaults. @throws TypeError */
export function resolveGatewayOptions(given: GatewayOptions): ResolvedGatewayOptions {
  checkOptions(given, GATEWAY_OPTIONS)
  return { ...withDefaults(given, GATEWAY_DEFAULTS), tokens: given.tokens }
}

function checkToken(name: string, value: unknown): void {
  // The value is a secret: the message does not show it.
  if (typeof value === 'string' && /^[\w.~+/-]+=*$/.test(value)) return
  throw new TypeError(`Expected \`${name}\` to be letters, digits and -._~+/, then any =`)
}

function checkMaxWait(name: string, value: unknown): void {
  if (typeof value === 'number' && value >= 0 && value <= MAX_WAIT) return
  throw expectedError(name, `a number of milliseconds from 0 to ${MAX_WAIT}`, value)
}

function checkObject(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) throw expectedError(name, 'an object', value)
}

function listOf(check: Check): Check {
  return (name, value) => {
    if (!Array.isArray(value)) throw expectedError(name, 'an array', value)
    for (const [index, part] of value.entries()) check(`${name}[${index}]`, part)
  }
}

function textLike(form: RegExp, what: string): Check {
  return (name, value) => {
    if (typeof value !== 'string' || !form.test(value)) throw expectedError(name, what, value)
  }
}
