import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/fence-memory.ts'
import { FORMAT } from '../../../../kernel/redis/keys.ts'

/**
 * KEYS    the record
 * ARGV    inbox and nonce of the flight, prefix of inbox channels, '1' on a cluster
 * returns 1
 */
export const UNPARK: string = `
local key, park = KEYS[1], '@' .. ARGV[1]
local r = redis.call('HMGET', key, park, 'o', 'a')
if not r[1] then return 1 end
local found = {}
for _, field in ipairs(parks(key)) do
  if field ~= park then found[#found + 1] = field end
end
remove(key, { park })
redis.call('HSET', key, 'n', #found)
if r[2] then
  if r[3] and #found == 0 then tell(ARGV[2], '@' .. string.match(r[2], '^(.*)%.'), 'w') end
  return 1
end
local gone = hint(ARGV[2], found, ARGV[3])
if #gone > 0 then
  remove(key, gone)
  redis.call('HSET', key, 'n', #found - #gone)
end
return 1
`

/**
 * KEYS    the record
 * ARGV    broadcast channel, name of the record as processes know it
 * returns the fence of the running grant, if this is its first invalidation, else 0
 */
export const INVALIDATE: string = `
local key = KEYS[1]
local r = redis.call('HMGET', key, 'f', 'd', 'o', 'u', 'l', 'su')
local f, doomed = num(r[1]), 0
if f > 0 then
  if r[3] and num(r[2]) < f then doomed = f end
  -- Those who were parked for it may still read it, nobody else.
  local readable = num(r[6]) > now
  local value = readable and redis.call('HGET', key, 'v')
  remove(key, { 'vu', 'eu', 'vs', 'pu', 'v', not readable and 'w' or nil })
  redis.call('HSET', key, 'd', int(f))
  if value then redis.call('HSET', key, 'w', value) end
  keep(key, last(0, num(r[6]), 0, num(r[4]), num(r[5]), 0, 0))
end
-- Unheard, it would leave the caches of other processes as they are: then it has failed, and the caller must know.
local told = redis.pcall('PUBLISH', ARGV[1], '${FORMAT}' .. int(f > 0 and f < ${MAX_EXACT_INTEGER} and f or ${MAX_EXACT_INTEGER}) .. ' ' .. ARGV[2])
if type(told) == 'table' and told.err then return told end
return doomed
`

/**
 * KEYS    the record
 * returns { 1 when leased, holder, fence, left, parked, 1 when a value is kept, fence, age, fresh, stale }
 */
export const SNAPSHOT: string = `
local r = redis.call('HMGET', KEYS[1], 'o', 'h', 'f', 'u', 'n', 'vf', 'va', 'vu', 'vs')
local vu, vs = num(r[8]), num(r[9])
local leased, kept = r[1] and num(r[4]) > now, math.max(vu, vs) > now
return {
  leased and 1 or 0, r[2] or '', num(r[3]), num(r[4]) - now, num(r[5]),
  kept and 1 or 0, num(r[6]), now - num(r[7]), math.max(0, vu - now), math.max(0, vs - math.max(now, vu)),
}
`

/**
 * Where a client may read from replicas, this reads the primary.
 * KEYS    the record
 * returns its value with the header, or false
 */
export const FIND: string = `return redis.call('HGET', KEYS[1], 'v')`
