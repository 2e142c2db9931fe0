import { LRUCache } from 'lru-cache'
import type { Open, Value } from './contender.ts'

export const open: Open = async ({ ttl, max, work }) => {
  const cache = new LRUCache<string, Value>({ max, ttl, fetchMethod: (key) => work(key) })
  return {
    get: (key) => cache.fetch(key),
    close: async () => cache.clear(),
  }
}
