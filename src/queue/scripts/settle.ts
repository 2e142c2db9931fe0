/** How an outcome is told and kept: shared by what ends a job. */
export const SETTLE: string = `
local function parksOf(key, r)
  local found = {}
  if r.w and r.w ~= '' then found[1] = { park = r.w, generation = r.y } end
  if num(r.n) > 0 then
    local all = redis.call('HGETALL', key)
    for n = 1, #all, 2 do
      if string.sub(all[n], 1, 1) == '@' then
        found[#found + 1] = { field = all[n], park = string.sub(all[n], 2), generation = all[n + 1] }
      end
    end
  end
  return found
end

-- Older entries of a list of finished jobs are dropped from it; their records then end with what else they are kept for.
local function trim(set, count, age, linger)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now - age))
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
  redis.call('PEXPIRE', set, int(age))
end

-- Ends the generation of a record. r: y, f, w, n, N, r as in it. over: kind, bytes, ttl, linger, keep, age.
-- Returns whether another generation is to follow.
local function settle(key, r, over)
  local found, fence = parksOf(key, r), num(r.f)
  local told, gone = {}, {}
  for _, one in ipairs(found) do
    if not r.N or over.all or num(one.generation) <= num(r.y) then
      told[#told + 1] = one.park
      if one.field then gone[#gone + 1] = one.field end
    end
  end
  if #gone > 0 then remove(key, gone) end
  local set = { 'o', '', 'w', '', 'k', over.kind, 's', int(fence), 'Y', r.y }
  local function put(name, value) set[#set + 1] = name set[#set + 1] = value end
  if over.kind ~= 'x' then put(over.kind, over.bytes) end
  if #gone > 0 then put('n', num(r.n) - #gone) end
  local ttl = over.ttl
  if over.kind == 'v' or over.kind == 'e' then
    if ttl > 0 then clock() end
    put(over.kind .. 'u', ttl > 0 and int(now + ttl) or '0')
  end
  local listed = (over.keep > 0 and over.age > 0) and (over.kind == 'e' and 'x' or over.kind == 'v' and 'c') or nil
  local follows = r.N and not over.all
  if listed and not follows then put('L', listed) end
  redis.call('HSET', key, unpack(set))
  if not follows then
    keepFor(key, math.max(ttl, over.linger, listed and over.age or 0))
    if listed then
      clock()
      local list = listed == 'x' and X or C
      redis.call('ZADD', list, int(now), idOf(key))
      trim(list, over.keep, over.age, over.linger)
    end
  end
  if #told > 0 then
    local message = over.kind .. ' ' .. int(fence) .. '\\n' .. over.bytes
    if #over.bytes > over.limit then message = 'm' end
    for _, park in ipairs(told) do post(park, message) end
  end
  return follows
end

-- Begins the next generation of a record, that of a rerun.
local function follow(key, command, r)
  local n = redis.call('HMGET', key, 'P', 'B', 'C')
  redis.call('HDEL', key, 'N', 'P', 'B', 'C', 'p', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6', 'p7', 'p8', 'p9', 'p10', 'p11', 'p12',
    'p13', 'p14', 'p15', 'b', 'a', 'z', 'l', 'g', 'c', 'R')
  local set = { 'y', r.N, 'c', n[3] or '' }
  putPayload(set, n[1] or '')
  if n[2] and n[2] ~= '' then set[#set + 1] = 'b' set[#set + 1] = n[2] end
  redis.call('HSET', key, unpack(set))
  keepOn(key)
  line(command, idOf(key), r.r, false)
end
`
