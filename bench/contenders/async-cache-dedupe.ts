import { createCache } from 'async-cache-dedupe'
import { Redis } from 'ioredis'
import type { Open, Value } from './contender.ts'

interface Values {
  value: (key: string) => Promise<Value>
}

export const open: Open = async ({ layers, host, port, prefix, ttl, max, work }) => {
  const client = layers === 'memory' ? undefined : new Redis({ host, port, keyPrefix: `${prefix}:` })
  const cache = createCache({
    ttl: ttl / 1000,
    storage: client ? { type: 'redis', options: { client } } : { type: 'memory', options: { size: max } },
  })
  cache.define('value', (key) => work(key))
  const { value } = cache as unknown as Values
  const get = value.bind(cache)
  return {
    get: (key) => get(key),
    close: async () => client?.disconnect(),
  }
}
