/**
 * KEYS    the record
 * ARGV    inbox and nonce of the flight, prefix of inbox channels, '1' on a cluster
 * returns 1
 */
export const UNPARK: string = `
local key, park = KEYS[1], '@' .. ARGV[1]
local r = redis.call('HMGET', key, park, 'o')
if not r[1] then return 1 end
local found = {}
for _, field in ipairs(parks(key)) do
  if field ~= park then found[#found + 1] = field end
end
remove(key, { park })
redis.call('HSET', key, 'n', #found)
if r[2] then return 1 end
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
  remove(key, { 'vu', 'eu' })
  redis.call('HSET', key, 'd', int(f))
  keep(key, last(0, num(r[6]), 0, num(r[4]), num(r[5])))
end
-- Unheard, it would leave the caches of other processes as they are: then it has failed, and the caller must know.
local told = redis.pcall('PUBLISH', ARGV[1], '1' .. (f > 0 and int(f) or '9007199254740991') .. ' ' .. ARGV[2])
if type(told) == 'table' and told.err then return told end
return doomed
`

/**
 * KEYS    the record
 * returns { 1 when leased, holder, fence, left, parked, 1 when there is a fresh value, fence, age, fresh }
 */
export const SNAPSHOT: string = `
local r = redis.call('HMGET', KEYS[1], 'o', 'h', 'f', 'u', 'n', 'vf', 'va', 'vu')
local leased, fresh = r[1] and num(r[4]) > now, num(r[8]) > now
return {
  leased and 1 or 0, r[2] or '', num(r[3]), num(r[4]) - now, num(r[5]),
  fresh and 1 or 0, num(r[6]), now - num(r[7]), num(r[8]) - now,
}
`
