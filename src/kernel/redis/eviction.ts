import { warnOnce } from '../warnings.ts'
import type { RedisClient } from './client.ts'

/**
 * Warns once if the server may evict keys that have an expiry, as all of ours have: leases, fences and jobs would be lost.
 * Asked beside all other commands: whoever may not ask, or is not answered, is not warned.
 */
export function warnOfEviction(client: RedisClient): void {
  client.callBuffer('info', ['memory']).then(
    (reply) => {
      const [, policy] = /^maxmemory_policy:(\S+)/m.exec(String(reply)) ?? []
      if (policy === undefined || policy === 'noeviction') return
      warnOnce(
        'SOLOFLIGHT_EVICTION',
        `The maxmemory-policy of Redis is ${policy}: it may evict locks, results and jobs before their time. Nothing is promised then; set it to noeviction, or use another Redis.`,
      )
    },
    () => {},
  )
}
