import { warnOnce } from '../warnings.ts'
import type { RedisClient } from './client.ts'

/**
 * Emits a process warning if the server may evict keys that have an expiry, as all keys of the library have: leases, fences
 * and jobs would be lost. Without permission for INFO, or without a reply, there is no warning.
 */
export function warnOfEviction(client: RedisClient): void {
  client.callBuffer('info', ['memory']).then(
    (reply) => {
      const [, policy] = /^maxmemory_policy:(\S+)/m.exec(String(reply)) ?? []
      if (policy === undefined || policy === 'noeviction') return
      warnOnce(
        'SOLOFLIGHT_EVICTION',
        `The maxmemory-policy of Redis is ${policy}: it may evict locks, results and jobs before they expire. No guarantee holds then. Set it to noeviction, or use another Redis.`,
      )
    },
    () => {},
  )
}
