import { LRUCache } from 'lru-cache'
import type { Open, Value } from './contender.ts'

function opening(options: { ttlResolution?: number }): Open {
  return async ({ ttl, max, work }) => {
    const cache = new LRUCache<string, Value>({ max, ttl, ...options, fetchMethod: (key) => work(key) })
    return {
      get: (key) => cache.fetch(key),
      close: async () => cache.clear(),
    }
  }
}

/** Looks at the clock for every hit, as soloflight does. */
export const exact: Open = opening({ ttlResolution: 0 })

/** Looks at the clock once a millisecond of the event loop. */
export const byDefault: Open = opening({})
