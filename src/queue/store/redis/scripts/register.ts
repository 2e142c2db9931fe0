import { Script, SERVER_CLOCK } from '../../../../kernel/redis/call.ts'

/**
 * Adds a queue to the register, or notes its use, and drops the queues that are too old or too many.
 *
 * KEYS    1 the register: a zset of names by the time of their last use
 * ARGV    1 name  2 how long a queue is listed after its last use, ms  3 how many are listed at most
 */
export const ADD_QUEUE: Script = new Script(/* lua */ `
local register, name, ttl, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
${SERVER_CLOCK}
redis.call('ZREMRANGEBYSCORE', register, '-inf', string.format('%.0f', now - ttl))
redis.call('ZADD', register, string.format('%.0f', now), name)
local excess = redis.call('ZCARD', register) - most
if excess > 0 then redis.call('ZREMRANGEBYRANK', register, 0, excess - 1) end
redis.call('PEXPIRE', register, ttl)
return 1
`)

/**
 * Removes a queue from the register.
 *
 * KEYS    1 the register
 * ARGV    1 name
 */
export const REMOVE_QUEUE: Script = new Script(/* lua */ `return redis.call('ZREM', KEYS[1], ARGV[1])`)

/**
 * Lists the register. A script, because a client that reads from replicas sends scripts to the primary.
 *
 * KEYS    1 the register
 * ARGV    1 how long a queue is listed after its last use, ms  2 names at most
 * returns the number of queues; names, the last used first
 */
export const LIST_QUEUES: Script = new Script(/* lua */ `
${SERVER_CLOCK}
local oldest = string.format('(%.0f', now - tonumber(ARGV[1]))
return { redis.call('ZCOUNT', KEYS[1], oldest, '+inf'),
  redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', oldest, 'LIMIT', 0, ARGV[2]) }
`)
