import { FORMAT } from '../../../../kernel/keys.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/server.ts'

/** If the broadcast fails, the caches of other processes stay as they are: then the script fails too. */
const broadcast = (version: string) => /* lua */ `
local published = redis.pcall('PUBLISH', channel, '${FORMAT}' .. ${version} .. ' ' .. name)
if type(published) == 'table' and published.err then return published end`

/**
 * KEYS    the record
 * ARGV    1 broadcast channel  2 name of the record as processes know it
 * returns the fence of the running grant, if this is its first invalidation, else 0
 */
export const INVALIDATE: string = /* lua */ `
local key, channel, name = KEYS[1], ARGV[1], ARGV[2]
local lastFence, invalidatedUpTo, owner, leaseUntil, length, readableUntil, waitsUntil =
  unpack(redis.call('HMGET', key, 'f', 'd', 'o', 'u', 'l', 'su', 'wu'))
lastFence, leaseUntil, readableUntil = num(lastFence), num(leaseUntil), num(readableUntil)
local invalidatedGrant = 0
if lastFence > 0 then
  if owner and num(invalidatedUpTo) < lastFence then invalidatedGrant = lastFence end
  -- Flights that were parked for the value may still read it.
  local readable = readableUntil > now
  local value = readable and redis.call('HGET', key, 'v')
  local gone = { 'vu', 'eu', 'vs', 'pu', 'v' }
  -- Without its fence the value is not found again when the server's clock goes back.
  if not readable then gone[6], gone[7] = 'w', 'vf' end
  remove(key, gone)
  redis.call('HSET', key, 'd', int(lastFence))
  if value then redis.call('HSET', key, 'w', value) end
  keep(key, math.max(readableUntil, num(waitsUntil), leaseUntil > 0 and leaseUntil + num(length) or 0))
end
${broadcast(`int(lastFence > 0 and lastFence < ${MAX_EXACT_INTEGER} and lastFence or ${MAX_EXACT_INTEGER})`)}
return invalidatedGrant
`

/**
 * Gives a tag a new version. A tag without a version matches no result: then nothing is written.
 *
 * KEYS    the tag
 * ARGV    1 broadcast channel  2 name of the tag as processes know it
 * returns 1
 */
export const INVALIDATE_TAG: string = /* lua */ `
local key, channel, name = KEYS[1], ARGV[1], ARGV[2]
local known = redis.call('GET', key)
local version = math.max(num(known) + 1, us)
if not (version <= ${MAX_EXACT_INTEGER}) then return redis.error_reply('ERR The version of the tag can grow no more: delete ' .. key) end
version = int(version)
if known then redis.call('SET', key, version, 'KEEPTTL') end
${broadcast(`'t' .. version`)}
return 1
`
