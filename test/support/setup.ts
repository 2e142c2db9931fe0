import type { Redis } from 'ioredis'
import { type ClientOptions, Clients } from './clients.ts'
import type { Address } from './daemon.ts'
import { TcpProxy } from './proxy.ts'
import { RedisServer, type RedisServerOptions } from './redis-server.ts'

export interface SetupOptions extends RedisServerOptions {
  /** Whether clients reach the server through a proxy. @default false */
  proxy?: boolean
}

/** What most tests start with. */
export interface Setup extends AsyncDisposable {
  readonly server: RedisServer
  readonly proxy: TcpProxy | undefined
  /** The ioredis options that reach the server, through the proxy if there is one. */
  readonly redis: Address
  /** The same as a string: ioredis takes the path of a socket as well as a URL. */
  readonly url: string
  /** A connected client by these options, closed at the end. */
  client(options?: ClientOptions): Promise<Redis>
}

/**
 * Starts a private server, and a proxy before it if asked.
 *
 * @example
 * await using t = await setup({ proxy: true })
 */
export function setup(options: SetupOptions & { proxy: true }): Promise<Setup & { readonly proxy: TcpProxy }>
export function setup(options?: SetupOptions): Promise<Setup>
export async function setup({ proxy: wantsProxy = false, ...options }: SetupOptions = {}): Promise<Setup> {
  const server = await RedisServer.start(options)
  const proxy = wantsProxy ? await TcpProxy.start(server.options) : undefined
  const redis = proxy?.options ?? server.options
  const clients = new Clients()
  return {
    server,
    proxy,
    redis,
    url: 'path' in redis ? redis.path : `redis://${redis.host}:${redis.port}`,
    client: (options = {}) => clients.connect({ ...redis, ...options }),
    async [Symbol.asyncDispose]() {
      clients[Symbol.dispose]()
      await proxy?.[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
    },
  }
}
