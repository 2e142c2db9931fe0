import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/fence-memory.ts'
import { FORMAT } from '../../../../kernel/redis/keys.ts'
import { HEADER_LENGTH, VALUE_HEADER } from './prelude.ts'

/** Reads what decides whether a grant is still held, in this order; \`held\` compares. */
const HELD = `
local function held(o, f, u, l)
  return o == token and f == fence and now <= u + l
end`

/**
 * KEYS    the record
 * ARGV    token, fence, lease
 * returns { held, doomed }
 */
export const RENEW: string = `
local key, token, fence, lease = KEYS[1], ARGV[1], num(ARGV[2]), num(ARGV[3])
${HELD}
local r = redis.call('HMGET', key, 'o', 'f', 'u', 'l', 'd', 'vu', 'su', 'eu', 'vs', 'pu')
if not held(r[1], num(r[2]), num(r[3]), num(r[4])) then return { 0, 0 } end
-- Nothing to remove: but out of memory, a script may not begin with a write that grows.
redis.call('HDEL', key, '')
redis.call('HSET', key, 'u', int(now + lease), 'l', int(lease))
keep(key, last(num(r[6]), num(r[7]), num(r[8]), now + lease, lease, num(r[9]), num(r[10])))
return { 1, num(r[5]) >= fence and 1 or 0 }
`

/**
 * KEYS    the record
 * ARGV    token, fence, bytes, prefix of inbox channels
 * returns whether it is held
 */
export const PROGRESS: string = `
local key, token, fence = KEYS[1], ARGV[1], num(ARGV[2])
${HELD}
local r = redis.call('HMGET', key, 'o', 'f', 'u', 'l', 'n')
if not held(r[1], num(r[2]), num(r[3]), num(r[4])) then return 0 end
local found = num(r[5]) > 0 and parks(key) or {}
redis.call('HSET', key, 'g', ARGV[3])
for _, park in ipairs(found) do tell(ARGV[4], park, 'p\\n' .. ARGV[3]) end
return 1
`

/**
 * KEYS    the record
 * ARGV    token, fence, kind (v, e, or n: not to be kept), bytes, ttl, linger, largest message, prefix of inbox channels,
 *         broadcast channel, name of the record as processes know it, how long it is kept beyond its ttl, tags, how long
 *         nobody is to wait for anybody
 * returns { accepted, doomed }
 */
export const SETTLE: string = `
local key, token, fence, kind, bytes, ttl = KEYS[1], ARGV[1], num(ARGV[2]), ARGV[3], ARGV[4], num(ARGV[5])
${HELD}
local r = redis.call('HMGET', key, 'o', 'f', 'u', 'l', 'd', 's', 'k', 'n', 'vu', 'vs', 'pu')
local doomed = num(r[5]) >= fence
if num(r[6]) == fence then
  local function kept()
    if kind ~= 'v' then return redis.call('HGET', key, 'e') end
    local value = redis.call('HMGET', key, 'v', 'w')
    local text = value[1] or value[2] or ''
    return string.sub(text, ${HEADER_LENGTH + 1} + (string.byte(text) == 1 and 4 + struct.unpack('>I4', text, ${HEADER_LENGTH + 1}) or 0))
  end
  local repeated = r[7] == kind and kept() == bytes
  return { repeated and 1 or 0, doomed and 1 or 0 }
end
if not held(r[1], num(r[2]), num(r[3]), num(r[4])) then return { 0, 0 } end
local found = num(r[8]) > 0 and parks(key) or {}

local su, fresh = now + num(ARGV[6]), doomed and 0 or now + ttl
local vu, eu, vs, pu = num(r[9]), 0, num(r[10]), num(r[11])
local stale, tags = doomed and 0 or num(ARGV[11]), ARGV[12]
if kind ~= 'v' then stale = 0 end
if kind == 'n' then ttl = 0 end
local replaced = kind == 'v' and math.max(vu, vs) > now
local gone = { 'o', 'u', 'l', 'h', 'c', 'g', 'a', 'n', 'e', 'eu', 'et' }
if kind == 'v' then
  for _, field in ipairs({ 'vs', 'pu', 'w' }) do gone[#gone + 1] = field end
end
for i = 1, #found do gone[#gone + 1] = found[i] end
remove(key, gone)
if kind == 'v' then
  vu, vs, pu = fresh, stale > 0 and fresh + stale or 0, 0
  local header = struct.pack('${VALUE_HEADER}', tags ~= '' and 1 or 0, fence, vu, vs)
  if tags ~= '' then header = header .. struct.pack('>I4', #tags) .. tags end
  redis.call('HSET', key, 'v', header .. bytes, 'vf', int(fence), 'vu', int(vu), 'va', int(now), 's', int(fence), 'k', 'v', 'su', int(su))
  if vs > 0 then redis.call('HSET', key, 'vs', int(vs)) end
elseif kind == 'e' then
  eu = fresh
  redis.call('HSET', key, 'e', bytes, 'eu', int(eu), 's', int(fence), 'k', 'e', 'su', int(su))
else
  pu = doomed and 0 or now + num(ARGV[13])
  redis.call('HSET', key, 'e', bytes, 's', int(fence), 'k', 'n', 'su', int(su), 'pu', int(pu))
end
if kind ~= 'v' and tags ~= '' then redis.call('HSET', key, 'et', tags) end
keep(key, last(vu, su, eu, 0, 0, vs, pu))

local head = (kind == 'e' and 'e ' or 'v ') .. int(fence) .. ' ' .. int(doomed and 0 or ttl) .. ' ' .. (doomed and '1' or '0')
if stale > 0 or tags ~= '' then head = head .. ' ' .. int(stale) .. ' ' .. #tags end
local message = #bytes <= num(ARGV[7]) and head .. '\\n' .. tags .. bytes or 'm'
for i = 1, #found do tell(ARGV[8], found[i], message) end
if replaced then redis.pcall('PUBLISH', ARGV[9], '${FORMAT}' .. int(fence - 1) .. ' ' .. ARGV[10]) end
return { 1, doomed and 1 or 0 }
`

/**
 * KEYS    the record
 * ARGV    token, fence, linger, next token or '', next lease, highest fence seen, holder, prefix of inbox channels,
 *         '1' on a cluster, '1' when the lease only ends now
 * returns { released, next fence or 0 }
 */
export const RELEASE: string = `
local key, token, fence, nextToken = KEYS[1], ARGV[1], num(ARGV[2]), ARGV[4]
${HELD}
local r = redis.call('HMGET', key, 'o', 'f', 'u', 'l', 's', 'k', 'n', 'vu', 'c', 'vs', 'pu', 'su', 'eu')
local f = num(r[2])
if nextToken ~= '' and r[1] == nextToken then return { 1, f } end
if num(r[5]) == fence then return { r[6] == 'r' and 1 or 0, 0 } end
if not held(r[1], f, num(r[3]), num(r[4])) then return { 0, 0 } end

local su, vu, vs, pu = now + num(ARGV[3]), num(r[8]), num(r[10]), num(r[11])
local lease, granted = num(ARGV[5]), math.max(f + 1, us, num(ARGV[6]) + 1)
if nextToken ~= '' and granted <= ${MAX_EXACT_INTEGER} then
  remove(key, { 'g', 'e', 'eu', 'et', 'a' })
  redis.call('HSET', key, 'o', nextToken, 'f', int(granted), 'u', int(now + lease), 'l', int(lease), 'h', ARGV[7],
    's', int(fence), 'k', 'r', 'su', int(su))
  keep(key, last(vu, su, 0, now + lease, lease, vs, pu))
  return { 1, granted }
end
local found = num(r[7]) > 0 and parks(key) or {}
if ARGV[10] == '1' then
  local u = math.min(num(r[3]), now)
  redis.call('HSET', key, 'u', int(u))
  keep(key, last(vu, num(r[12]), num(r[13]), u, num(r[4]), vs, pu))
  hint(ARGV[8], found, '1')
  return { 1, 0 }
end
remove(key, { 'o', 'u', 'l', 'h', 'c', 'g', 'a', 'e', 'eu', 'et' })
redis.call('HSET', key, 's', int(fence), 'k', 'r', 'su', int(su))
keep(key, last(vu, su, 0, 0, 0, vs, pu))
local gone = hint(ARGV[8], found, ARGV[9])
if #gone > 0 then
  remove(key, gone)
  redis.call('HSET', key, 'n', #found - #gone)
end
return { 1, 0 }
`

/**
 * KEYS    the record
 * ARGV    token, fence, linger, prefix of inbox channels, '1' on a cluster
 * returns 1 given up, 0 somebody is parked, -1 lost
 */
export const ABANDON: string = `
local key, token, fence = KEYS[1], ARGV[1], num(ARGV[2])
${HELD}
local r = redis.call('HMGET', key, 'o', 'f', 'u', 'l', 's', 'k', 'n', 'vu', 'vs', 'pu')
if num(r[5]) == fence then return r[6] == 'r' and 1 or -1 end
if not held(r[1], num(r[2]), num(r[3]), num(r[4])) then return -1 end
local found = num(r[7]) > 0 and parks(key) or {}
-- Receivers are not counted across the nodes of a cluster.
local gone = {}
for _, park in ipairs(found) do
  local receivers = tell(ARGV[4], park, 'q')
  if ARGV[5] ~= '1' and receivers == 0 then gone[#gone + 1] = park end
end
if #gone < #found then
  remove(key, gone)
  redis.call('HSET', key, 'n', #found - #gone, 'a', '1')
  return 0
end
local su = now + num(ARGV[3])
for _, field in ipairs({ 'o', 'u', 'l', 'h', 'c', 'g', 'a', 'n', 'e', 'eu', 'et' }) do gone[#gone + 1] = field end
remove(key, gone)
redis.call('HSET', key, 's', int(fence), 'k', 'r', 'su', int(su))
keep(key, last(num(r[8]), su, 0, 0, 0, num(r[9]), num(r[10])))
return 1
`
