import { ID_LENGTH } from '../../../../kernel/keys.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/server.ts'
import { ANY_STALENESS, WAIT_RETENTION } from '../../store.ts'

/**
 * Answers claims. wire.ts encodes them and parses the replies.
 *
 * KEYS    one record each (on a cluster: one)
 * ARGV    1 inbox  2 holder  3 highest fence seen  4 how many flights may park  5 lease
 *         then a claim for each key: the nonce alone for a first, plain claim, else
 *         `<nonce><attempt> lease afterFence parkedFence flags maxStaleness acceptStaleWhileHeld expectedFence trace`
 *         flags: 1 refresh, 2 no takeover, 4 no bypass, 8 wait only
 * returns for each key three values in a row (nested replies cost more), then, once, the server's time in ms:
 *         1 status                                  2 bytes                3 more
 *         'V' fence ttlLeft invalidated staleLeft   value with its header  ·
 *         'U' fence invalidated                     unstored value         its tags
 *         'E' fence ttlLeft invalidated             failure                its tags, or stale
 *         'S' the stale value answers               ·                      stale
 *         'G' fence takeover                        ·                      stale
 *         'N' fence (bypass)                        ·                      stale
 *         'P' fence leaseLeft afterFence (parked)   trace                  progress, or stale
 *         'X' lease expired                         ·                      stale
 *         'O' overloaded, 'R' conflict, 'F' fences exhausted, '!' the script failed for this key
 *         stale: { 'fence staleFor staleLeft', value with its header, tags or progress or nil }, or nil
 */
export const CLAIM: string = /* lua */ `
local inbox, holder, highestFence, maxParked = ARGV[1], ARGV[2], num(ARGV[3]), num(ARGV[4])

local function claim(key, arg)
  local nonce, attempt, lease, afterFence, parkedFence, flags, trace = arg, '1', num(ARGV[5]), 0, 0, 0, ''
  local maxStaleness, acceptStaleWhileHeld, expectedFence = ${ANY_STALENESS}, 0, 0
  if #arg > ${ID_LENGTH} then
    local l, a, p, f, m, s, e
    nonce = string.sub(arg, 1, ${ID_LENGTH})
    attempt, l, a, p, f, m, s, e, trace =
      string.match(arg, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$', ${ID_LENGTH + 1})
    lease, afterFence, parkedFence, flags = num(l), num(a), num(p), num(f)
    maxStaleness, acceptStaleWhileHeld, expectedFence = num(m), num(s), num(e)
  end
  local refresh, noTakeover, noBypass, waitOnly = flags % 2 == 1, flags % 4 >= 2, flags % 8 >= 4, flags >= 8
  local token, park = inbox .. nonce .. '.' .. attempt, (waitOnly and '~' or '@') .. inbox .. nonce

  local value, valueFence, freshUntil, staleUntil, owner, lastFence, leaseUntil, outcomeFence, outcomeKind,
    readableUntil, errorFreshUntil, errorTags, invalidatedUpTo, bypassUntil, parkedCount, isParked, ownerTrace, progress,
    waitsUntil = unpack(redis.call('HMGET', key, 'v', 'vf', 'vu', 'vs', 'o', 'f', 'u', 's', 'k',
      'su', 'eu', 'et', 'd', 'pu', 'n', park, 'c', 'g', 'wu'))
  valueFence, freshUntil, staleUntil = num(valueFence), num(freshUntil), num(staleUntil)
  lastFence, leaseUntil, outcomeFence = num(lastFence), num(leaseUntil), num(outcomeFence)
  readableUntil, errorFreshUntil, bypassUntil = num(readableUntil), num(errorFreshUntil), num(bypassUntil)
  invalidatedUpTo, parkedCount, waitsUntil = num(invalidatedUpTo), num(parkedCount), num(waitsUntil)

  local staleFor, stale = now - freshUntil, nil
  if value and not refresh and valueFence > afterFence and staleFor >= 0 and staleFor < maxStaleness
    and staleUntil > now then
    stale = { int(valueFence) .. ' ' .. int(staleFor) .. ' ' .. int(staleUntil - now), value, progress }
  end

  -- A repeated claim: its own grant.
  if owner == token then
    redis.call('HSET', key, 'u', int(now + lease), 'l', int(lease))
    keep(key, math.max(freshUntil, staleUntil, readableUntil, errorFreshUntil, bypassUntil, waitsUntil,
      now + lease + lease))
    return 'G ' .. int(lastFence) .. ' 0', nil, stale
  end

  -- A fresh result, or the outcome that the flight was parked for.
  local awaited = parkedFence > 0 and outcomeFence > afterFence and outcomeFence >= parkedFence and readableUntil > now
  if awaited and outcomeKind == 'n' then
    local invalidated = invalidatedUpTo >= outcomeFence and ' 1' or ' 0'
    return 'U ' .. int(outcomeFence) .. invalidated, redis.call('HGET', key, 'e'), errorTags
  end
  local failed = outcomeKind == 'e' and (awaited or (not refresh and outcomeFence > afterFence and errorFreshUntil > now))
  local found = (awaited and outcomeKind == 'v' and valueFence == outcomeFence)
    or (not refresh and value and valueFence > afterFence and freshUntil > now)
  if found and not (awaited and failed) then
    local ttlLeft, staleLeft = math.max(0, freshUntil - now), math.max(0, staleUntil - math.max(now, freshUntil))
    local invalidated = invalidatedUpTo >= valueFence and ' 1 ' or ' 0 '
    local status = 'V ' .. int(valueFence) .. ' ' .. int(ttlLeft) .. invalidated .. int(staleLeft)
    return status, value or redis.call('HGET', key, 'w')
  end
  if failed then
    if stale then stale[3] = errorTags end
    local invalidated = invalidatedUpTo >= outcomeFence and ' 1' or ' 0'
    local status = 'E ' .. int(outcomeFence) .. ' ' .. int(math.max(0, errorFreshUntil - now)) .. invalidated
    return status, redis.call('HGET', key, 'e'), stale or errorTags
  end

  -- Another process holds the lease, or the flight only waits.
  local leased = owner and leaseUntil > now
  if leased or waitOnly then
    if leased and stale and parkedFence == 0 and staleFor < acceptStaleWhileHeld then return 'S', nil, stale end
    if not isParked then
      if parkedCount >= maxParked then return 'O' end
      redis.call('HSET', key, park, '', 'n', parkedCount + 1)
    end
    if waitOnly then
      -- Removes nothing. When Redis is out of memory, a script may not begin with a write that grows.
      if isParked then redis.call('HDEL', key, '') end
      waitsUntil = now + ${WAIT_RETENTION}
      redis.call('HSET', key, 'wu', int(waitsUntil))
      keep(key, math.max(freshUntil, staleUntil, readableUntil, errorFreshUntil, bypassUntil, waitsUntil,
        owner and leaseUntil + num(redis.call('HGET', key, 'l')) or 0))
    end
    if refresh or invalidatedUpTo >= lastFence then afterFence = math.max(afterFence, lastFence) end
    local status = 'P ' .. int(owner and lastFence or lastFence + 1) .. ' ' .. int(math.max(0, leaseUntil - now))
    return status .. ' ' .. int(afterFence), ownerTrace, stale or progress
  end
  if expectedFence > 0 and (expectedFence ~= lastFence or invalidatedUpTo >= expectedFence) then return 'R' end
  if owner and parkedFence > 0 and noTakeover then return 'X', nil, stale end
  if bypassUntil > now and not noBypass then return 'N ' .. int(lastFence), nil, stale end

  local fence = math.max(lastFence + 1, us, highestFence + 1)
  if not (fence <= ${MAX_EXACT_INTEGER}) then return 'F' end
  local gone = owner and { 'a' } or {}
  if isParked then gone[#gone + 1] = park end
  if ownerTrace then gone[#gone + 1] = 'c' end
  if progress then gone[#gone + 1] = 'g' end
  remove(key, gone)
  local set = { 'o', token, 'f', int(fence), 'u', int(now + lease), 'l', int(lease), 'h', holder }
  if trace ~= '' then set[#set + 1] = 'c' set[#set + 1] = trace end
  if isParked then set[#set + 1] = 'n' set[#set + 1] = parkedCount - 1 end
  redis.call('HSET', key, unpack(set))
  keep(key, math.max(freshUntil, staleUntil, readableUntil, errorFreshUntil, bypassUntil, waitsUntil,
    now + lease + lease))
  return 'G ' .. int(fence) .. (owner and ' 1' or ' 0'), nil, stale
end

local replies = {}
for i, key in ipairs(KEYS) do
  local done, status, bytes, more = true
  -- A single claim fails with the error of Redis.
  if #KEYS == 1 then status, bytes, more = claim(key, ARGV[6])
  else done, status, bytes, more = pcall(claim, key, ARGV[i + 5]) end
  replies[3 * i - 2] = done and status or '!'
  replies[3 * i - 1] = done and bytes or false
  replies[3 * i] = done and more or false
end
replies[3 * #KEYS + 1] = now
return replies
`

/**
 * Removes a parked flight. One that claims may have been notified that the resource is free: then the next one is.
 *
 * KEYS    the record
 * ARGV    1 inbox and nonce of the flight  2 prefix of inbox channels  3 '1' on a cluster
 * returns 1
 */
export const UNPARK: string = /* lua */ `
local key, park, channels, cluster = KEYS[1], '@' .. ARGV[1], ARGV[2], ARGV[3]
local claims, waits, owner, notifyUnwanted = unpack(redis.call('HMGET', key, park, '~' .. ARGV[1], 'o', 'a'))
if not claims and not waits then return 1 end
if waits then park = '~' .. ARGV[1] end
local others = {}
for _, field in ipairs(parks(key)) do
  if field ~= park then others[#others + 1] = field end
end
remove(key, { park })
redis.call('HSET', key, 'n', #others)
if owner then
  if notifyUnwanted and #others == 0 then notify(channels, '@' .. string.match(owner, '^(.*)%.'), 'w') end
  return 1
end
if waits then return 1 end
local gone = notifyFree(channels, others, cluster)
if #gone > 0 then
  remove(key, gone)
  redis.call('HSET', key, 'n', #others - #gone)
end
return 1
`
