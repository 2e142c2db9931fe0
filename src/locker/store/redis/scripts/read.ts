/**
 * KEYS    the record
 * returns { 1 when leased, holder, fence, leaseLeft, parked, 1 when a value is kept, fence, age, ttlLeft, staleLeft }
 */
export const SNAPSHOT: string = /* lua */ `
local owner, holder, lastFence, leaseUntil, parkedCount, valueFence, acceptedAt, freshUntil, staleUntil =
  unpack(redis.call('HMGET', KEYS[1], 'o', 'h', 'f', 'u', 'n', 'vf', 'va', 'vu', 'vs'))
leaseUntil, freshUntil, staleUntil = num(leaseUntil), num(freshUntil), num(staleUntil)
local leased, kept = owner and leaseUntil > now, math.max(freshUntil, staleUntil) > now
return {
  leased and 1 or 0, holder or '', num(lastFence), leaseUntil - now, num(parkedCount),
  kept and 1 or 0, num(valueFence), now - num(acceptedAt), math.max(0, freshUntil - now),
  math.max(0, staleUntil - math.max(now, freshUntil)),
}
`

/**
 * For a client that may send plain reads to replicas: a script reads the primary.
 *
 * KEYS    the record
 * returns its value with the header, or false
 */
export const VALUE: string = /* lua */ `return redis.call('HGET', KEYS[1], 'v')`

/**
 * KEYS    tags
 * ARGV    1 how long each must keep its version at least, ms (missing ones are made); 0 changes nothing
 * returns the version of each, or false
 */
export const TAG_VERSIONS: string = /* lua */ `
local keepFor, versions = num(ARGV[1]), {}
for i, key in ipairs(KEYS) do versions[i] = redis.call('GET', key) end
if keepFor == 0 then return versions end
for i, key in ipairs(KEYS) do
  if not versions[i] then
    versions[i] = int(us)
    redis.call('SET', key, versions[i], 'PX', int(keepFor))
  elseif redis.call('PTTL', key) < keepFor then
    redis.call('PEXPIRE', key, int(keepFor))
  end
end
return versions
`
