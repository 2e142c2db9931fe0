import { isCluster, type RedisClusterClient, type RedisServerClient } from './client.ts'

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
