import { type Cache, type CacheEntry, cachified, totalTtl } from '@epic-web/cachified'
import { createClient } from '@keyv/redis'
import { redisCacheAdapter } from 'cachified-redis-adapter'
import { LRUCache } from 'lru-cache'
import type { Open } from './contender.ts'

/** The in-process cache of cachified's README. */
function memoryCache(max: number): Cache {
  const entries = new LRUCache<string, CacheEntry>({ max })
  return {
    set: (key, entry) => entries.set(key, entry, { ttl: totalTtl(entry.metadata) }),
    get: (key) => entries.get(key),
    delete: (key) => entries.delete(key),
  }
}

export const open: Open = async ({ layers, host, port, prefix, ttl, max, work }) => {
  const client = layers === 'memory' ? undefined : createClient({ url: `redis://${host}:${port}` })
  client?.on('error', () => {})
  await client?.connect()
  const cache = client ? redisCacheAdapter(client) : memoryCache(max)
  return {
    get: (key) => cachified({ key: `${prefix}:${key}`, cache, ttl, getFreshValue: () => work(key) }),
    close: async () => client?.destroy(),
  }
}
