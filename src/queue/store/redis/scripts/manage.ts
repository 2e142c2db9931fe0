import { PENDING_JOB_TTL } from '../../store.ts'
import { WORKER_TTL } from './prelude.ts'

/**
 * KEYS    at the end the record
 * returns nil, or command, y, Y, k, o, d, a, z, b, g, f, s, waiters, payload, bytes of the outcome
 */
export const SNAPSHOT: string = `
local key = KEYS[K + 1]
local h = redis.call('HMGET', key, 'm', 'y', 'Y', 'k', 'o', 'd', 'a', 'z', 'b', 'g', 'f', 's', 'w', 'n', 'p')
if not h[2] then return false end
local waiters = num(h[14]) + ((h[13] and h[13] ~= '') and 1 or 0)
local bytes = h[4] and h[4] ~= 'x' and redis.call('HGET', key, h[4])
return { h[1] or '', h[2], h[3] or '0', h[4] or '', h[5] or '', h[6] or '', num(h[7]), num(h[8]), h[9] or '', h[10] or false,
  h[11] or '0', h[12] or '0', waiters, payloadOf(key, h[15]), bytes or '' }
`

/**
 * ARGV    state, from, how many
 * returns ids
 */
export const LIST: string = `
clock()
local state, from, count = ARGV[A + 1], num(ARGV[A + 2]), num(ARGV[A + 3])
local ids = {}
if state == 'waiting' then
  for _, command in ipairs(commands) do
    local length = redis.call('LLEN', command.w)
    if #ids < count and from < length then
      local found = redis.call('LRANGE', command.w, from, from + count - #ids - 1)
      local ranked = redis.call('ZRANGE', command.z, 0, -1)
      local before = 0
      if #ranked > 0 and from > 0 then
        for _, id in ipairs(redis.call('LRANGE', command.w, 0, from - 1)) do
          if id == '!' then before = before + 1 end
        end
      end
      for _, id in ipairs(found) do
        if id == '!' then
          before = before + 1
          id = ranked[before] and string.sub(ranked[before], 20)
        end
        if id then ids[#ids + 1] = id end
      end
    end
    from = math.max(0, from - length)
  end
  return ids
end
if state == 'active' then
  local delayed, at = {}, 0
  for _, name in ipairs(redis.call('ZRANGE', D, 0, -1)) do delayed[name] = true end
  for _, name in ipairs(redis.call('ZRANGE', T, 0, -1)) do
    if not delayed[name] then
      at = at + 1
      if at > from and #ids < count then ids[#ids + 1] = string.match(name, '^%S+') end
    end
  end
  return ids
end
local set = state == 'delayed' and D or state == 'failed' and X or C
if set ~= D then redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now)) end
for n, name in ipairs(redis.call('ZRANGE', set, from, from + count - 1)) do ids[n] = string.match(name, '^%S+') end
return ids
`

/** returns waiting, delayed, active, completed, failed */
export const COUNTS: string = `
clock()
for _, set in ipairs({ X, C }) do redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now)) end
local waiting = 0
for _, command in ipairs(commands) do waiting = waiting + redis.call('LLEN', command.w) end
local delayed = redis.call('ZCARD', D)
return { waiting, delayed, redis.call('ZCARD', T) - delayed, redis.call('ZCARD', C), redis.call('ZCARD', X) }
`

/**
 * Removes jobs that wait or are delayed, the first of them. What runs, or was given to a worker, stays.
 *
 * ARGV    'waiting' or 'delayed', how many at most, linger
 * returns how many were removed, and 1 if there may be more
 */
export const DRAIN: string = `
clock()
local most, linger = num(ARGV[A + 2]), num(ARGV[A + 3])
local found, removed, stuck = 0, 0, {}

-- Whether it was read; a record whose slot is on the move is not. One that is over, or runs, stays as it is.
local function drop(key)
  local h = redis.pcall('HMGET', key, 'y', 'Y', 'o', 'f', 'w', 'n', 'N')
  if h.err then return false end
  if not h[1] or num(h[2]) >= num(h[1]) or (h[3] and h[3] ~= '') then return true end
  endJob(key, { y = h[1], f = h[4], w = h[5], n = num(h[6]), N = h[7] }, 'x', '', linger, 0)
  removed = removed + 1
  return true
end

if ARGV[A + 1] == 'delayed' then
  local names = redis.call('ZRANGE', D, 0, most - 1)
  found = #names
  for _, name in ipairs(names) do
    if drop(base .. 'j/' .. string.match(name, '^%S+')) then
      redis.call('ZREM', D, name)
      redis.call('ZREM', T, name)
    else
      stuck[#stuck + 1] = name
    end
  end
else
  for _, command in ipairs(commands) do
    local ids, first = front(command, most - found)
    found = found + #ids
    takeFront(command, #ids, first)
    local left = #stuck
    for _, id in ipairs(ids) do
      if id and not drop(base .. 'j/' .. id) then stuck[#stuck + 1] = id end
    end
    for n = #stuck, left + 1, -1 do putFirst(command, stuck[n]) end
    if found >= most then break end
  end
end
sendMail()
return { removed, (found >= most and #stuck < found) and 1 or 0 }
`

/**
 * Reads for those who must not read from a replica: scripts are always run by the primary.
 *
 * ARGV    the command, and what follows its key
 */
export const READ = 'return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))'

/**
 * Runs a job that is over once more.
 *
 * KEYS    at the end the record
 * ARGV    the generation that is over
 * returns the new generation, also when this is sent again; or 0
 */
export const RETRY: string = `
clock()
local key, command = KEYS[K + 1], commands[1]
local h = redis.call('HMGET', key, 'y', 'Y', 'k', 'r')
if h[1] and num(h[1]) > num(ARGV[A + 1]) then return h[1] end
if not h[1] or num(h[2]) < num(h[1]) or h[3] == 'x' then return 0 end
local id = idOf(key)
local y = grown(id, h[1], us)
redis.call('ZREM', X, id)
redis.call('ZREM', C, id)
redis.call('HDEL', key, 'a', 'z', 'l', 'g', 'L', 'R', 'w')
redis.call('HSET', key, 'y', int(y), 'vu', '0', 'eu', '0')
keepFor(key, ${PENDING_JOB_TTL})
line(command, id, h[4], false)
dispatch(command)
deliver()
return int(y)
`

/**
 * ARGV    name of the command, or '' for all, real name of the command
 */
export const PAUSE: string = `
redis.call('SADD', S, ARGV[A + 1])
extend(S, ${PENDING_JOB_TTL})
if ARGV[A + 1] ~= '' then
  redis.call('HSET', Q, ARGV[A + 1], ARGV[A + 2])
  keepFor(Q, ${PENDING_JOB_TTL})
end
for _, command in ipairs(commands) do
  if redis.call('LINDEX', command.i, 0) ~= 'P' then redis.call('LPUSH', command.i, 'P') end
  keepFor(command.i, ${WORKER_TTL})
end
return 1
`

/**
 * ARGV    name of the command, or '' for all
 */
export const RESUME: string = `
redis.call('SREM', S, ARGV[A + 1])
for _, command in ipairs(commands) do
  local paused = redis.call('SMISMEMBER', S, '', command.name)
  if paused[1] == 0 and paused[2] == 0 then
    redis.call('LREM', command.i, 0, 'P')
    dispatch(command)
  end
end
deliver()
return 1
`
