import KeyvRedis from '@keyv/redis'
import { createCache } from 'cache-manager'
import { CacheableMemory } from 'cacheable'
import { Keyv } from 'keyv'
import type { Open } from './contender.ts'

export const open: Open = async ({ layers, host, port, prefix, ttl, max, work }) => {
  const stores: Keyv[] = []
  if (layers !== 'redis') stores.push(new Keyv({ store: new CacheableMemory({ ttl, lruSize: max }) }))
  if (layers !== 'memory') {
    stores.push(new Keyv({ store: new KeyvRedis(`redis://${host}:${port}`), namespace: prefix }))
  }
  const cache = createCache({ stores, ttl })
  return {
    get: (key) => cache.wrap(key, () => work(key)),
    close: async () => {
      await cache.disconnect()
    },
  }
}
