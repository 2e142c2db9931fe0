import KeyvRedis from '@keyv/redis'
import { Cacheable } from 'cacheable'
import type { Open } from './contender.ts'

export const open: Open = async ({ layers, host, port, prefix, ttl, work }) => {
  const secondary =
    layers === 'memory' ? undefined : new KeyvRedis(`redis://${host}:${port}`, { namespace: prefix })
  const cache = new Cacheable({ ...(secondary && { secondary }), ttl })
  return {
    get: (key) => cache.getOrSet(key, () => work(key)),
    close: () => cache.disconnect(),
  }
}
