import { Command, Redis, type RedisOptions } from 'ioredis'
import { checkNames, shownValue } from '../options.ts'

/**
 * The part of an ioredis client that the library uses. Clients and Clusters of ioredis 5.10 and later and of ioredis 6 fit.
 * The type is structural, so that the user's version of ioredis may differ from ours.
 */
export interface RedisClient {
  readonly status: string
  connect(): Promise<unknown>
  disconnect(reconnect?: boolean): void
  // biome-ignore lint/suspicious/noExplicitAny: the listener type of Node's own EventEmitter
  on(event: string, listener: (...args: any[]) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: the listener type of Node's own EventEmitter
  off(event: string, listener: (...args: any[]) => void): unknown
  callBuffer(command: string, args: (string | Buffer | number)[]): Promise<unknown>
  // biome-ignore lint/suspicious/noExplicitAny: the Command of one version of ioredis is not that of another
  sendCommand(command: any): unknown
  readonly options?: { readonly keyPrefix?: string | undefined }
}

/** A client of one server. It can be duplicated for a second connection. */
export interface RedisServerClient extends RedisClient {
  // biome-ignore lint/suspicious/noExplicitAny: the options of one version of ioredis are not those of another
  duplicate(...override: any[]): any
  ping(): Promise<unknown>
  subscribe(...channels: string[]): Promise<unknown>
  unsubscribe(...channels: string[]): Promise<unknown>
}

/** A client of a whole cluster. */
export interface RedisClusterClient extends RedisClient {
  readonly isCluster: true
  readonly options?: { readonly keyPrefix?: string | undefined; readonly scaleReads?: unknown }
  /** For each slot the names of its nodes, the primary first. */
  readonly slots?: readonly (readonly string[])[]
  nodes(role?: 'all'): RedisServerClient[]
}

/** A URL, options of ioredis (Sentinel included), or a client, which the caller closes. */
export type RedisSource = string | URL | RedisOptions | RedisServerClient | RedisClusterClient

/** Marks a Connection of any copy of this package. */
export const BRAND: unique symbol = Symbol.for('soloflight.Connection')

/** Whether a client is a Cluster. */
export function isCluster(client: RedisClient): client is RedisClusterClient {
  return 'isCluster' in client && client.isCluster === true
}

/** The slot of a key, and the node that serves it, if the client knows one. */
export function slotOf(client: RedisClusterClient, key: string): { slot: number; node: string | undefined } {
  const slot = new Command('hget', [key], { keyPrefix: client.options?.keyPrefix ?? '' }).getSlot() ?? 0
  return { slot, node: client.slots?.[slot]?.[0] }
}

/** Whether read commands go to the primary: a replica may be behind. */
export function readsPrimary(client: RedisClient): boolean {
  return !isCluster(client) || client.options?.scaleReads === 'master'
}

const CONNECT_TIMEOUT_MS = 2000

/** Time for a connection to close: ioredis keeps the process alive meanwhile. */
const DISCONNECT_TIMEOUT_MS = 100

/** Longest delay between two attempts to connect. */
const MAX_RETRY_DELAY_MS = 1000

/** Defaults of an owned command client, below the options of the user. */
const DEFAULT_OPTIONS: RedisOptions = {
  lazyConnect: true,
  connectTimeout: CONNECT_TIMEOUT_MS,
  disconnectTimeout: DISCONNECT_TIMEOUT_MS,
  // The estimate that Redis gives of its remaining loading time may be far too long.
  maxLoadingRetryTime: MAX_RETRY_DELAY_MS,
  // The command gate has its own deadlines and retries.
  maxRetriesPerRequest: null,
  retryStrategy: (times) =>
    Math.min(50 * 2 ** Math.min(times, 10), MAX_RETRY_DELAY_MS) * (0.75 + Math.random() / 4),
}

/** Options that override those of the user. With a command timeout of ioredis, a late reply would be lost. */
const FORCED_OPTIONS = { lazyConnect: true, replyMapping: 'legacy', commandTimeout: undefined } as const

/** A client for `source`, not connected yet. `owned`: it was created here. @throws TypeError */
export function clientFor(source: unknown): {
  client: RedisServerClient | RedisClusterClient
  owned: boolean
} {
  if (isClient(source)) return { client: source, owned: false }
  const options = optionsOf(source)
  const client: Redis = new Redis({
    ...DEFAULT_OPTIONS,
    // After a failover the known address may belong to a replica.
    reconnectOnError: (error) => {
      if (!/(^|: -?)READONLY\b/.test(error.message)) return false
      client.emit('error', error)
      return true
    },
    ...options,
    ...FORCED_OPTIONS,
  })
  // Stays when all other listeners are removed: later errors concern nobody.
  client.on('error', () => {})
  return { client, owned: true }
}

function isClient(source: unknown): source is RedisServerClient | RedisClusterClient {
  const { callBuffer, duplicate, status } = (source ?? {}) as Partial<Redis>
  return [callBuffer, duplicate].every((method) => typeof method === 'function') && typeof status === 'string'
}

/** The names of ioredis's options. ioredis ignores unknown options, and connects to localhost. */
const OPTION_NAMES = {
  ...{ host: 0, port: 0, path: 0, family: 0, username: 0, password: 0, db: 0, tls: 0, connectionName: 0 },
  ...{ keyPrefix: 0, readOnly: 0, stringNumbers: 0, protocol: 0, replyMapping: 0, natMap: 0, monitor: 0 },
  ...{
    connectTimeout: 0,
    disconnectTimeout: 0,
    commandTimeout: 0,
    socketTimeout: 0,
    keepAlive: 0,
    noDelay: 0,
  },
  ...{ blockingTimeout: 0, blockingTimeoutGrace: 0, retryStrategy: 0, reconnectOnError: 0, lazyConnect: 0 },
  ...{ maxRetriesPerRequest: 0, maxLoadingRetryTime: 0, enableReadyCheck: 0, enableOfflineQueue: 0 },
  ...{ enableAutoPipelining: 0, autoPipeliningIgnoredCommands: 0, autoResubscribe: 0 },
  ...{ autoResendUnfulfilledCommands: 0, offlineQueue: 0, commandQueue: 0, disableClientInfo: 0 },
  ...{ clientInfoTag: 0, showFriendlyErrorStack: 0, scripts: 0, himportFieldsets: 0, Connector: 0 },
  ...{ sentinels: 0, name: 0, role: 0, preferredSlaves: 0, updateSentinels: 0, failoverDetector: 0 },
  ...{ sentinelUsername: 0, sentinelPassword: 0, sentinelTLS: 0, enableTLSForSentinelMode: 0 },
  ...{ sentinelCommandTimeout: 0, sentinelMaxConnections: 0, sentinelRetryStrategy: 0 },
  sentinelReconnectStrategy: 0,
} satisfies Record<keyof RedisOptions, 0>

/** Option names of other libraries, and what to use instead. */
const FOREIGN_OPTIONS: Record<string, string> = {
  url: 'pass the URL itself as `redis`',
  uri: 'pass the URL itself as `redis`',
  connectionString: 'pass the URL itself as `redis`',
  socket: 'that is an option of node-redis; pass `host` and `port` (or `path`, `tls`) beside the others',
  database: 'its number is `db`',
  user: 'that is `username`',
  pass: 'that is `password`',
  ssl: 'that is `tls`, with options of TLS',
  rootNodes: 'for a cluster pass `new Cluster(nodes)` of ioredis',
  nodes: 'for a cluster pass `new Cluster(nodes)` of ioredis',
}

const EXPECTED_SOURCE = 'a URL, ioredis options or an ioredis client'

/** The ioredis options for a URL or an options object. */
function optionsOf(source: unknown): RedisOptions {
  if (typeof source === 'string') return optionsOfUrl(source)
  // A URL of another realm (jsdom, a vm) is not an instance of our class.
  if (Object.prototype.toString.call(source) === '[object URL]') return optionsOfUrl(String(source))
  if (typeof source !== 'object' || source === null)
    throw new TypeError(`Expected \`redis\` to be ${EXPECTED_SOURCE}, got ${shownValue(source)}`)
  const mistake = mistakenSource(source)
  if (mistake) throw new TypeError(`Expected \`redis\` to be ${EXPECTED_SOURCE}; this is ${mistake}`)
  for (const name of Object.keys(source)) {
    const meant = name in OPTION_NAMES ? undefined : FOREIGN_OPTIONS[name]
    if (meant) throw new TypeError(`Unknown option \`${name}\` in \`redis\`: ${meant}`)
  }
  checkNames('redis', source, OPTION_NAMES)
  const options: RedisOptions = Object.fromEntries(
    Object.entries(source).filter(([, value]) => value !== undefined),
  )
  if ('host' in source && !(options.host || options.path || options.sentinels || options.Connector)) {
    throw new TypeError('Expected `redis.host` to be the name of a host: without one it would be localhost')
  }
  return options
}

/** Describes an object that is neither a client of ioredis nor options; undefined if it can be options. */
function mistakenSource(source: object): string | undefined {
  const { then, sendCommand, send_command } = source as Record<string, unknown>
  if (BRAND in source)
    return 'a Connection of another copy of soloflight: install the package once, or pass its URL or client'
  if (typeof then === 'function') return 'a promise: await it first'
  if (Array.isArray(source)) return 'an array: for a cluster pass `new Cluster(nodes)` of ioredis'
  if (typeof sendCommand === 'function' || typeof send_command === 'function')
    return 'a client of node-redis or another library: pass its URL, or a client of ioredis (5.10 or later)'
  const prototype: object | null = Object.getPrototypeOf(source)
  if (prototype === null || Object.getPrototypeOf(prototype) === null) return undefined
  return `an object of the class ${prototype.constructor?.name || 'of something else'}`
}

/** Parses a URL as ioredis does, but refuses the parts that ioredis ignores. */
function optionsOfUrl(text: string): RedisOptions {
  if (text.trim() === '') {
    throw new TypeError(
      'Expected `redis` to be a URL, got an empty string; pass null, or leave it out, to work without Redis',
    )
  }
  const [, scheme] = /^(rediss?|unix):\/\//i.exec(text.trim()) ?? []
  const socket = text.startsWith('/') && !text.startsWith('//')
  const refused = (why: string) => new TypeError(`Expected \`redis\` to be ${why}, got ${shownValue(text)}`)
  if (!socket && scheme === undefined) throw refused('a URL such as redis://localhost:6379')
  let url: URL
  let credentials: RedisOptions
  try {
    url = new URL(socket ? `unix://${text}` : text)
    const [username, password] = [url.username, url.password].map(decodeURIComponent)
    credentials = username || password ? { username: username ?? '', password: password ?? '' } : {}
  } catch {
    throw refused('a valid URL')
  }
  const query = Object.fromEntries(url.searchParams)
  const rest: RedisOptions = {
    ...query,
    ...(query['family'] && { family: Number(query['family']) }),
    ...credentials,
  }
  if (socket || scheme?.toLowerCase() === 'unix') return { ...rest, path: decodeURIComponent(url.pathname) }
  const db = url.pathname.replace(/^\//, '')
  if (!/^\d*$/.test(db)) throw refused('a URL whose path is the number of a database')
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (host === '') throw refused('a URL that names a host')
  return {
    ...rest,
    host,
    ...(url.port !== '' && { port: Number(url.port) }),
    ...(db !== '' && { db: Number(db) }),
    ...(scheme?.toLowerCase() === 'rediss' && { tls: {} }),
  }
}

/** Options of a subscriber that is duplicated from a command client. It connects once: its owner creates the next one. */
const SUBSCRIBER_OPTIONS: Partial<RedisOptions> = {
  lazyConnect: true,
  keyPrefix: '',
  readOnly: false,
  enableOfflineQueue: true,
  enableReadyCheck: false,
  autoResubscribe: false,
  connectTimeout: CONNECT_TIMEOUT_MS,
  disconnectTimeout: DISCONNECT_TIMEOUT_MS,
  maxRetriesPerRequest: 0,
  retryStrategy: () => null,
  sentinelRetryStrategy: () => null,
}

/** A new client for subscriptions, not connected yet; undefined while a cluster knows no node. */
export function subscriberFor(client: RedisServerClient | RedisClusterClient): RedisServerClient | undefined {
  if (!isCluster(client)) return client.duplicate(SUBSCRIBER_OPTIONS)
  const nodes = client.nodes('all')
  return nodes[Math.floor(Math.random() * nodes.length)]?.duplicate(SUBSCRIBER_OPTIONS)
}

/** The options of ioredis that say what a client connects to. Those of a user's client have any type. */
interface Target {
  readonly host?: unknown
  readonly port?: unknown
  readonly path?: unknown
  readonly db?: unknown
  readonly sentinels?: unknown
  readonly name?: unknown
}

const DEFAULT_HOST = 'localhost'
const DEFAULT_PORT = 6379

/**
 * What a client connects to, without credentials: `host:port/db` or `path/db`; with Sentinel `name/db`; of a cluster the nodes
 * that it was given, sorted. The same in all processes that give the same address.
 */
export function addressOf(client: RedisServerClient | RedisClusterClient): string {
  if (isCluster(client)) {
    // Private in the types of ioredis.
    const { startupNodes = [] } = client as { startupNodes?: readonly unknown[] }
    return [...new Set(startupNodes.map(nodeOf))].sort().join(',')
  }
  const { host, port, path, db, sentinels, name } = (client.options ?? {}) as Target
  const database = `/${Number(db) || 0}`
  if (Array.isArray(sentinels) && sentinels.length > 0) return `${name ?? ''}${database}`
  if (typeof path === 'string' && path !== '') return path + database
  return hostAndPort(host, port) + database
}

/** A node as `Cluster` of ioredis takes it: a port, a URL, or options. */
function nodeOf(node: unknown): string {
  if (typeof node === 'object' && node !== null) {
    const { host, port }: Target = node
    return hostAndPort(host, port)
  }
  const text = String(node)
  if (/^\d+$/.test(text)) return hostAndPort(undefined, text)
  try {
    const { hostname, port } = new URL(text.includes('://') ? text : `redis://${text}`)
    return hostAndPort(hostname.replace(/^\[|\]$/g, ''), port)
  } catch {
    return hostAndPort(undefined, undefined)
  }
}

function hostAndPort(host: unknown, port: unknown): string {
  const name = typeof host === 'string' && host !== '' ? host.toLowerCase() : DEFAULT_HOST
  return `${name.includes(':') ? `[${name}]` : name}:${Number(port) || DEFAULT_PORT}`
}
