import { ID_LENGTH } from '../../../../kernel/keys.ts'
import { PENDING_JOB_TTL } from '../../store.ts'
import { GENERATION_FIELDS } from './prelude.ts'

/** Those who wait for a job are told its outcome together up to so many bytes; beyond it, that there is one. */
const MAX_NOTICE_BYTES = 1024 * 1024

/** How an outcome is told and kept: shared by what ends a job. */
export const SETTLE: string = `
local function parksOf(key, r)
  local found = {}
  if r.w and r.w ~= '' then found[1] = { park = r.w, generation = r.y } end
  if num(r.n) == 0 then return found end
  local fields = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 1) == '@' then fields[#fields + 1] = field end
  end
  -- By name: the payload and the last outcome may be large.
  for from = 1, #fields, 1000 do
    local some = redis.call('HMGET', key, unpack(fields, from, math.min(from + 999, #fields)))
    for n, generation in ipairs(some) do
      local field = fields[from + n - 1]
      found[#found + 1] = { field = field, park = string.sub(field, 2), generation = generation }
    end
  end
  return found
end

-- Older entries of a list of finished jobs are dropped from it; their records then end with what else they are kept for.
local function trim(set, count, linger)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now))
  local excess = redis.call('ZCARD', set) - count
  if excess > 0 then
    for _, id in ipairs(redis.call('ZRANGE', set, 0, excess - 1)) do
      local key = base .. 'j/' .. id
      local r = redis.pcall('HMGET', key, 'vu', 'eu', 'y', 'Y')
      if not r.err and r[3] and num(r[4]) >= num(r[3]) then
        redis.pcall('HDEL', key, 'L')
        keepFor(key, math.max(linger, num(r[1]) - now, num(r[2]) - now))
      end
    end
    redis.call('ZREMRANGEBYRANK', set, 0, excess - 1)
  end
  -- It ends with the last of it, whoever of those who add to it keeps for how long.
  local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
  if last then keepFor(set, num(last) - now) end
end

-- Tells those who wait for a generation of a record, and takes them off it. Returns how many it took off besides the first.
local function tellParks(key, r, all, message)
  if num(r.n) == 0 then
    if r.w and r.w ~= '' then post(r.w, message) end
    return 0
  end
  local gone = {}
  for _, one in ipairs(parksOf(key, r)) do
    if not r.N or all or num(one.generation) <= num(r.y) then
      post(one.park, message)
      if one.field then gone[#gone + 1] = one.field end
    end
  end
  remove(key, gone)
  return #gone
end

-- Ends the generation of a record. r: y, f, w, n, N as in it. terms: kind, ttl, linger, keep, age, limit; foreign: not by its
-- worker; all: also those who wait for the next generation. Returns whether another generation is to follow.
local function settle(key, r, terms, bytes)
  local kind, ttl, fence = terms.kind, terms.ttl, r.f or '0'
  -- Not too much to one process at once, either: it would lose its subscription.
  local much = #bytes > terms.limit or #bytes * num(r.n) > ${MAX_NOTICE_BYTES}
  local message = much and 'm' or kind .. ' ' .. fence .. '\\n' .. bytes
  local gone = tellParks(key, r, terms.all, message)
  local set = { 'o', '', 'w', '', 'k', kind, 's', fence, 'Y', r.y }
  local function put(name, value) set[#set + 1] = name set[#set + 1] = value end
  if kind ~= 'x' then
    put(kind, bytes)
    if ttl > 0 then
      clock()
      put(kind .. 'u', int(now + ttl))
    end
  end
  if gone > 0 then put('n', num(r.n) - gone) end
  -- Its worker has not ended it, and is not to be told that it has.
  if terms.foreign then put('F', fence) end
  -- Who submitted it is known by this when it is sent again.
  if r.w and r.w ~= '' then put('c', string.sub(r.w, ${ID_LENGTH + 1})) end
  local follows = r.N and not terms.all
  local list = not follows and terms.keep > 0 and terms.age > 0 and ((kind == 'e' and X) or (kind == 'v' and C)) or nil
  if list then put('L', list == X and 'x' or 'c') end
  redis.call('HSET', key, unpack(set))
  if follows then return true end
  keepFor(key, math.max(ttl, terms.linger, list and terms.age or 0))
  if list then
    clock()
    redis.call('ZADD', list, int(now + terms.age), idOf(key))
    trim(list, terms.keep, terms.linger)
  end
  return false
end

-- Begins the next generation of a record, that of a rerun.
local function follow(key, command, r)
  local n = redis.call('HMGET', key, 'P', 'B', 'C')
  redis.call('HDEL', key, 'N', 'P', 'B', 'C', ${GENERATION_FIELDS})
  local set = { 'y', r.N, 'c', n[3] or '' }
  putPayload(set, n[1] or '')
  if n[2] and n[2] ~= '' then set[#set + 1] = 'b' set[#set + 1] = n[2] end
  redis.call('HSET', key, unpack(set))
  keepFor(key, ${PENDING_JOB_TTL})
  line(command, idOf(key), redis.call('HGET', key, 'r'), false)
end

-- Ends a job from outside, and with it the next generation: whoever waits for that finds this to be its end. r: y, f, w, n, N
-- as in the record.
local function endJob(key, r, kind, bytes, linger, limit)
  remove(key, { 'N', 'P', 'B', 'C', 'd' })
  if r.N then
    r.y = r.N
    redis.call('HSET', key, 'y', r.y)
  end
  settle(key, r, { foreign = true, kind = kind, ttl = 0, linger = linger, keep = 0, age = 0, limit = limit, all = true }, bytes)
end
`
