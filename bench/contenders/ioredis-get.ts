import { Redis } from 'ioredis'
import { library } from '../library.ts'
import type { Open, Value } from './contender.ts'

/** The least that a hit in Redis can cost: GET, and the decoding that soloflight does as well. */
export const open: Open = async ({ host, port, prefix, ttl, work }) => {
  const { jsonCodec } = await library()
  const redis = new Redis({ host, port })
  return {
    get: async (key) => {
      const bytes = await redis.getBuffer(`${prefix}:${key}`)
      if (bytes) return jsonCodec.decode(bytes) as Value
      const value = await work(key)
      await redis.set(`${prefix}:${key}`, jsonCodec.encode(value), 'PX', ttl)
      return value
    },
    close: async () => redis.disconnect(),
  }
}
