import { Redis } from 'ioredis'
import { Mutex } from 'redis-semaphore'
import type { Contender, Open, Value } from './contender.ts'

/**
 * The recipe for work that is to be done once in all processes: look, lock, look again. Callers of one key in one
 * process are merged, as nobody would have each of them poll for the lock.
 */
export const open: Open = async ({ host, port, prefix, ttl, work }) => {
  const redis = new Redis({ host, port })
  const look = async (key: string) => {
    const text = await redis.get(`${prefix}:${key}`)
    return text === null ? undefined : (JSON.parse(text) as Value)
  }
  const computeOnce = async (key: string) => {
    const found = await look(key)
    if (found) return found
    const mutex = new Mutex(redis, `${prefix}:${key}`)
    await mutex.acquire()
    try {
      const foundNow = await look(key)
      if (foundNow) return foundNow
      const value = await work(key)
      await redis.set(`${prefix}:${key}`, JSON.stringify(value), 'PX', ttl)
      return value
    } finally {
      await mutex.release()
    }
  }
  const flights = new Map<string, Promise<Value>>()
  const contender: Contender = {
    get: (key) => {
      const known = flights.get(key)
      if (known) return known
      const flight = computeOnce(key).finally(() => flights.delete(key))
      flights.set(key, flight)
      return flight
    },
    close: async () => redis.disconnect(),
  }
  return contender
}
