import { FORMAT } from '../../../../kernel/keys.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/server.ts'
import { HEADER_LENGTH, VALUE_HEADER } from '../wire.ts'
import { ENDED_FIELDS } from './prelude.ts'

// The transitions of a lease by its holder.

/** Whether the lease is that of the grant. Expired, it is for as long again as it was, unless it was taken over. */
const HELD = /* lua */ `
local function held(owner, lastFence, leaseUntil, length)
  return owner == token and lastFence == fence and now <= leaseUntil + length
end`

/**
 * KEYS    the record
 * ARGV    1 token  2 fence  3 lease
 * returns { held, invalidated }
 */
export const RENEW: string = /* lua */ `
local key, token, fence, lease = KEYS[1], ARGV[1], num(ARGV[2]), num(ARGV[3])
${HELD}
local owner, lastFence, leaseUntil, length, invalidatedUpTo, freshUntil, staleUntil, readableUntil, errorFreshUntil,
  bypassUntil, waitsUntil =
  unpack(redis.call('HMGET', key, 'o', 'f', 'u', 'l', 'd', 'vu', 'vs', 'su', 'eu', 'pu', 'wu'))
if not held(owner, num(lastFence), num(leaseUntil), num(length)) then return { 0, 0 } end
-- Removes nothing. When Redis is out of memory, a script may not begin with a write that grows.
redis.call('HDEL', key, '')
redis.call('HSET', key, 'u', int(now + lease), 'l', int(lease))
keep(key, math.max(num(freshUntil), num(staleUntil), num(readableUntil), num(errorFreshUntil), num(bypassUntil),
  num(waitsUntil), now + lease + lease))
return { 1, num(invalidatedUpTo) >= fence and 1 or 0 }
`

/**
 * KEYS    the record
 * ARGV    1 token  2 fence  3 bytes  4 prefix of inbox channels
 * returns whether the lease is held
 */
export const PROGRESS: string = /* lua */ `
local key, token, fence, bytes, channels = KEYS[1], ARGV[1], num(ARGV[2]), ARGV[3], ARGV[4]
${HELD}
local owner, lastFence, leaseUntil, length, parkedCount = unpack(redis.call('HMGET', key, 'o', 'f', 'u', 'l', 'n'))
if not held(owner, num(lastFence), num(leaseUntil), num(length)) then return 0 end
local parked = num(parkedCount) > 0 and parks(key) or {}
redis.call('HSET', key, 'g', bytes)
for _, park in ipairs(parked) do notify(channels, park, 'p\\n' .. bytes) end
return 1
`

/**
 * KEYS    the record
 * ARGV    1 token  2 fence  3 kind: v, e, or n (not to be stored)  4 bytes  5 ttl  6 outcomeRetention  7 largest message
 *         8 prefix of inbox channels  9 broadcast channel  10 name of the record as processes know it  11 keepStale
 *         12 tags  13 bypassFor
 * returns { accepted, invalidated }
 */
export const SETTLE: string = /* lua */ `
local key, token, fence, kind, bytes, ttl = KEYS[1], ARGV[1], num(ARGV[2]), ARGV[3], ARGV[4], num(ARGV[5])
local retention, messageLimit, channels, broadcast, name = num(ARGV[6]), num(ARGV[7]), ARGV[8], ARGV[9], ARGV[10]
local keepStale, tags, bypassFor = num(ARGV[11]), ARGV[12], num(ARGV[13])
${HELD}
local owner, lastFence, leaseUntil, length, invalidatedUpTo, outcomeFence, outcomeKind, parkedCount, freshUntil,
  staleUntil, bypassUntil = unpack(redis.call('HMGET', key, 'o', 'f', 'u', 'l', 'd', 's', 'k', 'n', 'vu', 'vs', 'pu'))
local invalidated = num(invalidatedUpTo) >= fence
if outcomeFence and num(outcomeFence) == fence then
  local function accepted()
    if kind ~= 'v' then return redis.call('HGET', key, 'e') end
    local stored = redis.call('HMGET', key, 'v', 'w')
    local text = stored[1] or stored[2] or ''
    local tagBytes = string.byte(text) == 1 and 4 + struct.unpack('>I4', text, ${HEADER_LENGTH + 1}) or 0
    return string.sub(text, ${HEADER_LENGTH + 1} + tagBytes)
  end
  local repeated = outcomeKind == kind and accepted() == bytes
  return { repeated and 1 or 0, invalidated and 1 or 0 }
end
if not held(owner, num(lastFence), num(leaseUntil), num(length)) then return { 0, 0 } end
local parked = num(parkedCount) > 0 and parks(key) or {}
freshUntil, staleUntil, bypassUntil = num(freshUntil), num(staleUntil), num(bypassUntil)

local replaced = kind == 'v' and math.max(freshUntil, staleUntil) > now
local readableUntil, errorFreshUntil = now + retention, 0
if kind == 'n' then ttl = 0 end
if kind ~= 'v' or invalidated then keepStale = 0 end
local resultFreshUntil = invalidated and 0 or now + ttl
local gone = { ${ENDED_FIELDS}, 'n', 'wu' }
if kind == 'v' then
  for _, field in ipairs({ 'vs', 'pu', 'w' }) do gone[#gone + 1] = field end
end
for i = 1, #parked do gone[#gone + 1] = parked[i] end
remove(key, gone)
if kind == 'v' then
  freshUntil, staleUntil, bypassUntil = resultFreshUntil, keepStale > 0 and resultFreshUntil + keepStale or 0, 0
  local header = struct.pack('${VALUE_HEADER}', tags ~= '' and 1 or 0, fence, freshUntil, staleUntil)
  if tags ~= '' then header = header .. struct.pack('>I4', #tags) .. tags end
  redis.call('HSET', key, 'v', header .. bytes, 'vf', int(fence), 'vu', int(freshUntil), 'va', int(now),
    's', int(fence), 'k', 'v', 'su', int(readableUntil))
  if staleUntil > 0 then redis.call('HSET', key, 'vs', int(staleUntil)) end
elseif kind == 'e' then
  errorFreshUntil = resultFreshUntil
  redis.call('HSET', key, 'e', bytes, 'eu', int(errorFreshUntil), 's', int(fence), 'k', 'e', 'su', int(readableUntil))
else
  bypassUntil = invalidated and 0 or now + bypassFor
  redis.call('HSET', key, 'e', bytes, 's', int(fence), 'k', 'n', 'su', int(readableUntil), 'pu', int(bypassUntil))
end
if kind ~= 'v' and tags ~= '' then redis.call('HSET', key, 'et', tags) end
keep(key, math.max(freshUntil, staleUntil, readableUntil, errorFreshUntil, bypassUntil))

local head = (kind == 'e' and 'e ' or 'v ') .. int(fence) .. ' ' .. int(invalidated and 0 or ttl) .. (invalidated and ' 1' or ' 0')
if keepStale > 0 or tags ~= '' then head = head .. ' ' .. int(keepStale) .. ' ' .. #tags end
local message = #bytes <= messageLimit and head .. '\\n' .. tags .. bytes or 'm'
for i = 1, #parked do notify(channels, parked[i], message) end
if replaced then redis.pcall('PUBLISH', broadcast, '${FORMAT}' .. int(fence - 1) .. ' ' .. name) end
return { 1, invalidated and 1 or 0 }
`

/**
 * KEYS    the record
 * ARGV    1 token  2 fence  3 outcomeRetention  4 token of the regrant, or ''  5 its lease  6 highest fence seen  7 holder
 *         8 prefix of inbox channels  9 '1' on a cluster  10 '1' when the lease only expires now
 * returns { released, fence of the regrant or 0 }
 */
export const RELEASE: string = /* lua */ `
local key, token, fence, retention, regrantToken, regrantLease = KEYS[1], ARGV[1], num(ARGV[2]), num(ARGV[3]), ARGV[4], num(ARGV[5])
local highestFence, holder, channels, cluster, asExpired = num(ARGV[6]), ARGV[7], ARGV[8], ARGV[9], ARGV[10] == '1'
${HELD}
local owner, lastFence, leaseUntil, length, outcomeFence, outcomeKind, parkedCount, freshUntil, staleUntil, bypassUntil,
  readableUntil, errorFreshUntil, waitsUntil =
  unpack(redis.call('HMGET', key, 'o', 'f', 'u', 'l', 's', 'k', 'n', 'vu', 'vs', 'pu', 'su', 'eu', 'wu'))
lastFence, leaseUntil, length = num(lastFence), num(leaseUntil), num(length)
if regrantToken ~= '' and owner == regrantToken then return { 1, lastFence } end
if num(outcomeFence) == fence then return { outcomeKind == 'r' and 1 or 0, 0 } end
if not held(owner, lastFence, leaseUntil, length) then return { 0, 0 } end

local readable = now + retention
local valueUntil = math.max(num(freshUntil), num(staleUntil), num(bypassUntil), num(waitsUntil))
local granted = math.max(lastFence + 1, us, highestFence + 1)
if regrantToken ~= '' and granted <= ${MAX_EXACT_INTEGER} then
  remove(key, { 'g', 'e', 'eu', 'et', 'a' })
  redis.call('HSET', key, 'o', regrantToken, 'f', int(granted), 'u', int(now + regrantLease), 'l', int(regrantLease),
    'h', holder, 's', int(fence), 'k', 'r', 'su', int(readable))
  keep(key, math.max(valueUntil, readable, now + regrantLease + regrantLease))
  return { 1, granted }
end
local parked = num(parkedCount) > 0 and parks(key) or {}
if asExpired then
  local expiresAt = math.min(leaseUntil, now)
  redis.call('HSET', key, 'u', int(expiresAt))
  keep(key, math.max(valueUntil, num(readableUntil), num(errorFreshUntil), expiresAt + length))
  notifyFree(channels, parked, '1')
  return { 1, 0 }
end
remove(key, { ${ENDED_FIELDS} })
redis.call('HSET', key, 's', int(fence), 'k', 'r', 'su', int(readable))
keep(key, math.max(valueUntil, readable))
local gone = notifyFree(channels, parked, cluster)
if #gone > 0 then
  remove(key, gone)
  redis.call('HSET', key, 'n', #parked - #gone)
end
return { 1, 0 }
`

/**
 * KEYS    the record
 * ARGV    1 token  2 fence  3 outcomeRetention  4 prefix of inbox channels  5 '1' on a cluster
 * returns 1 released, 0 a flight is parked, -1 lost
 */
export const RELEASE_IF_UNWANTED: string = /* lua */ `
local key, token, fence, retention, channels, cluster = KEYS[1], ARGV[1], num(ARGV[2]), num(ARGV[3]), ARGV[4], ARGV[5]
${HELD}
local owner, lastFence, leaseUntil, length, outcomeFence, outcomeKind, parkedCount, freshUntil, staleUntil, bypassUntil,
  waitsUntil = unpack(redis.call('HMGET', key, 'o', 'f', 'u', 'l', 's', 'k', 'n', 'vu', 'vs', 'pu', 'wu'))
if num(outcomeFence) == fence then return outcomeKind == 'r' and 1 or -1 end
if not held(owner, num(lastFence), num(leaseUntil), num(length)) then return -1 end
local parked = num(parkedCount) > 0 and parks(key) or {}
-- Receivers are not counted across the nodes of a cluster.
local gone = {}
for _, park in ipairs(parked) do
  local receivers = notify(channels, park, 'q')
  if cluster ~= '1' and receivers == 0 then gone[#gone + 1] = park end
end
if #gone < #parked then
  remove(key, gone)
  redis.call('HSET', key, 'n', #parked - #gone, 'a', '1')
  return 0
end
local readableUntil = now + retention
for _, field in ipairs({ ${ENDED_FIELDS}, 'n' }) do gone[#gone + 1] = field end
remove(key, gone)
redis.call('HSET', key, 's', int(fence), 'k', 'r', 'su', int(readableUntil))
keep(key, math.max(num(freshUntil), num(staleUntil), num(bypassUntil), num(waitsUntil), readableUntil))
return 1
`
