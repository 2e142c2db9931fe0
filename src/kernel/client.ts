import { Redis, type RedisOptions } from 'ioredis'

/**
 * What the library needs of an ioredis client. Clients of ioredis 5.10 and later and of ioredis 6 fit, as do their
 * Clusters; it is structural so that a user's own version of ioredis may be another than ours.
 */
export interface RedisClient {
  readonly status: string
  connect(): Promise<unknown>
  disconnect(): void
  // biome-ignore lint/suspicious/noExplicitAny: the listener type of Node's own EventEmitter
  on(event: string, listener: (...args: any[]) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: the listener type of Node's own EventEmitter
  off(event: string, listener: (...args: any[]) => void): unknown
  callBuffer(command: string, args: (string | Buffer | number)[]): Promise<unknown>
}

/** A client of one server: it can be copied to make a second connection. */
export interface RedisServerClient extends RedisClient {
  // biome-ignore lint/suspicious/noExplicitAny: the options of one version of ioredis are not those of another
  duplicate(...override: any[]): any
  ping(): Promise<unknown>
  subscribe(...channels: string[]): Promise<unknown>
}

/** A client of a whole cluster. */
export interface RedisClusterClient extends RedisClient {
  readonly isCluster: true
  readonly options?: { readonly scaleReads?: unknown }
  nodes(role?: 'all'): RedisServerClient[]
}

/** Where Redis is: a URL, options of ioredis (Sentinel included), or a client that stays the caller's. */
export type RedisSource = string | RedisOptions | RedisServerClient | RedisClusterClient

/** Whether a client is one of a whole cluster. */
export function isCluster(client: RedisClient): client is RedisClusterClient {
  return 'isCluster' in client && client.isCluster === true
}

/** The commands that the library sends: everything else is done by scripts. */
type Sent = 'evalsha' | 'eval' | 'hget' | 'hmget' | 'publish'

/**
 * Sends a command by its own method, with replies as Buffers. `callBuffer` would do, but ioredis forgets the command's
 * name when it pipelines that by itself; and not all of these methods are in its types.
 */
export function send(
  client: RedisClient,
  command: Sent,
  args: (string | Buffer | number)[],
): Promise<unknown> {
  const methods = client as unknown as Record<
    string,
    ((...args: (string | Buffer | number)[]) => Promise<unknown>) | undefined
  >
  return methods[`${command}Buffer`]?.(...args) ?? client.callBuffer(command, args)
}

/** Whether a command that only reads is answered by the server that also writes: replicas may be behind. */
export function readsPrimary(client: RedisClient): boolean {
  return !isCluster(client) || client.options?.scaleReads === 'master'
}

function isClient(
  source: RedisOptions | RedisServerClient | RedisClusterClient,
): source is RedisServerClient | RedisClusterClient {
  return 'callBuffer' in source && typeof source.callBuffer === 'function'
}

/** A connection that has said nothing for this long (ms) although it was asked is given up and made anew. */
const SOCKET_TIMEOUT = 2000

/** A connection that we end has so long (ms) to say goodbye; ioredis keeps the process alive meanwhile. */
const DISCONNECT_TIMEOUT = 100

/** Longest pause (ms) between two attempts to connect. */
const LONGEST_RETRY = 1000

/** What our own command client adds to the options that the user gave. */
const OWNED: RedisOptions = {
  lazyConnect: true,
  connectTimeout: SOCKET_TIMEOUT,
  socketTimeout: SOCKET_TIMEOUT,
  disconnectTimeout: DISCONNECT_TIMEOUT,
  // Redis's own estimate of what is left of its loading may be far too long.
  maxLoadingRetryTime: LONGEST_RETRY,
  // Deadlines are ours; a command that is under way is idempotent and may be sent again as often as it takes.
  maxRetriesPerRequest: null,
  retryStrategy: (times) =>
    Math.min(50 * 2 ** Math.min(times, 10), LONGEST_RETRY) * (0.75 + Math.random() / 4),
  // After a failover the address that we know may belong to a replica: connect again, and send the command again.
  reconnectOnError: (error) => (/(^|: -?)READONLY\b/.test(error.message) ? 2 : false),
}

/** What it adds even if the user said otherwise: a reply that is given up by ioredis could not be made undone by us. */
const ALWAYS = { lazyConnect: true, replyMapping: 'legacy', commandTimeout: undefined } as const

/** A client for `source`, and whether it is ours to close. Connects to nothing yet. */
export function clientFor(source: RedisSource): {
  client: RedisServerClient | RedisClusterClient
  owned: boolean
} {
  if (typeof source === 'string') {
    if (!/^(rediss?|unix):\/\//.test(source) && !source.startsWith('/')) {
      throw new TypeError(
        `Expected \`redis\` to be a URL such as redis://localhost:6379, got \`${redacted(source)}\``,
      )
    }
    return { client: new Redis(source, { ...OWNED, ...ALWAYS }), owned: true }
  }
  if (typeof source !== 'object' || source === null) {
    throw new TypeError(
      `Expected \`redis\` to be a URL, ioredis options or an ioredis client, got \`${String(source)}\``,
    )
  }
  if (isClient(source)) return { client: source, owned: false }
  return {
    client: new Redis({ ...OWNED, ...source, ...ALWAYS }),
    owned: true,
  }
}

/** A URL as it may be shown: without its password. */
function redacted(url: string): string {
  return url.replace(/^.*@/s, '…@').slice(0, 80)
}

/** How a subscriber is made from a command client: no prefix, and one life only, since its owner makes the next. */
const SUBSCRIBER: Partial<RedisOptions> = {
  lazyConnect: true,
  keyPrefix: '',
  readOnly: false,
  enableOfflineQueue: true,
  enableReadyCheck: false,
  autoResubscribe: false,
  connectTimeout: SOCKET_TIMEOUT,
  disconnectTimeout: DISCONNECT_TIMEOUT,
  maxRetriesPerRequest: 0,
  retryStrategy: () => null,
  sentinelRetryStrategy: () => null,
}

/** A new, unconnected client for subscriptions beside `client`; undefined while a cluster has no node to offer. */
export function subscriberFor(client: RedisServerClient | RedisClusterClient): RedisServerClient | undefined {
  if (!isCluster(client)) return client.duplicate(SUBSCRIBER)
  const nodes = client.nodes('all')
  return nodes[Math.floor(Math.random() * nodes.length)]?.duplicate(SUBSCRIBER)
}
