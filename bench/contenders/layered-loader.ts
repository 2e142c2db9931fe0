import { Redis } from 'ioredis'
import { Loader, RedisCache } from 'layered-loader'
import type { Open, Value } from './contender.ts'

export const open: Open = async ({ layers, host, port, prefix, ttl, max, work }) => {
  const redis = layers === 'memory' ? undefined : new Redis({ host, port })
  const loader = new Loader<Value>({
    inMemoryCache: layers === 'redis' ? false : { cacheType: 'lru-map', ttlInMsecs: ttl, maxItems: max },
    ...(redis && { asyncCache: new RedisCache<Value>(redis, { prefix, json: true, ttlInMsecs: ttl }) }),
    dataSourceGetOneFn: async (key) => work(key),
  })
  return {
    get: (key) => loader.get(key),
    close: async () => {
      await loader.close()
      redis?.disconnect()
    },
  }
}
