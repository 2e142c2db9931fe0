import { Bus, type BusOptions } from '../../src/bus/index.ts'
import { portOf, RedisServer } from './redis-server.ts'

/** Several servers, as instances of a bus. */
export interface BusServers extends AsyncDisposable {
  readonly servers: readonly RedisServer[]
  readonly urls: readonly string[]
  /** Their names as instances. */
  readonly names: readonly string[]
  /** One more Bus on all servers, as another process would have it. Disconnected at the end. */
  open(options?: BusOptions): Bus
  /** The queues that are on each server, by the keys there. */
  queues(): Promise<string[][]>
}

export async function busServers(count: number): Promise<BusServers> {
  const servers = await Promise.all(Array.from({ length: count }, () => RedisServer.start({ port: 'free' })))
  const urls = servers.map((server) => `redis://127.0.0.1:${portOf(server)}`)
  const opened: Bus[] = []
  return {
    servers,
    urls,
    names: servers.map((server) => `127.0.0.1:${portOf(server)}/0`),
    open(options = {}) {
      const bus = new Bus({ redis: urls, ...options })
      opened.push(bus)
      return bus
    },
    queues: () => Promise.all(servers.map(queuesOn)),
    async [Symbol.asyncDispose]() {
      await Promise.all(opened.map((bus) => bus.disconnect({ grace: 0 })))
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()))
    },
  }
}

/** Reservations of names are not among them. */
async function queuesOn(server: RedisServer): Promise<string[]> {
  const keys = (await server.call('KEYS', 'soloflight:1:b{*')) as string[]
  const names = keys.filter((key) => !key.endsWith('}n')).map((key) => /\{(.*)\}/.exec(key)?.[1] ?? '')
  return [...new Set(names)].sort()
}
