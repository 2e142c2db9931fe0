import { Redis } from 'ioredis'
import type { Open, Value } from './contender.ts'

/** The least that a hit in Redis can cost: GET and JSON.parse. */
export const open: Open = async ({ host, port, prefix, ttl, work }) => {
  const redis = new Redis({ host, port })
  return {
    get: async (key) => {
      const text = await redis.get(`${prefix}:${key}`)
      if (text !== null) return JSON.parse(text) as Value
      const value = await work(key)
      await redis.set(`${prefix}:${key}`, JSON.stringify(value), 'PX', ttl)
      return value
    },
    close: async () => redis.disconnect(),
  }
}
