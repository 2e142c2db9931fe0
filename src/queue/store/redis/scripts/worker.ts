import { PENDING_JOB_TTL } from '../../store.ts'
import { DEADLINE_TTL } from './dispatch.ts'
import { WORKER_TTL } from './prelude.ts'

/**
 * ARGV    worker, places that are free, real name of the command
 * returns the server's time in ms
 */
export const SET_CAPACITY: string = `
local command, worker, count = commands[1], ARGV[A + 1], num(ARGV[A + 2])
redis.call('LREM', command.i, 0, worker)
local places = {}
for n = 1, count do places[n] = worker end
for from = 1, count, 1000 do
  redis.call('RPUSH', command.i, unpack(places, from, math.min(from + 999, count)))
end
local paused = redis.call('SMISMEMBER', S, '', command.name)
local halted, closed = paused[1] == 1 or paused[2] == 1, redis.call('LINDEX', command.i, 0) == 'P'
if halted and not closed then redis.call('LPUSH', command.i, 'P') end
-- Whoever resumed all did not know of this command yet.
if closed and not halted then redis.call('LPOP', command.i) end
-- Places end with the workers that are known: each says so again before.
keepFor(command.i, ${WORKER_TTL})
redis.call('HSET', command.r, worker, count)
keepFor(command.r, ${WORKER_TTL})
redis.call('HSET', Q, command.name, ARGV[A + 3])
keepFor(Q, ${PENDING_JOB_TTL})
extend(S, ${PENDING_JOB_TTL})
dispatch(command)
deliver()
clock()
return now
`

/**
 * The worker is told as well: that message is behind all that was delivered to it.
 *
 * ARGV    worker
 */
export const REMOVE_WORKER: string = `
local command, worker = commands[1], ARGV[A + 1]
redis.call('LREM', command.i, 0, worker)
redis.call('HDEL', command.r, worker)
post(worker, 'w')
sendMail()
return 1
`

/**
 * ARGV    for each job `<command> <fence> <lease>`, worker
 * returns for each job 1 held, 0 lost or 2 cancelled; then once the server's time in ms
 */
export const RENEW: string = `
clock()
local replies, leases = {}, {}
for n = 1, #KEYS - K do
  local key, a = KEYS[K + n], A + 2 * (n - 1)
  local c, fence, lease = string.match(ARGV[a + 1], '^(%d+) (%d+) (%d+)$')
  -- A record that cannot be read is lost, and no other with it.
  local r = redis.pcall('HMGET', key, 'o', 'f', 'l', 's', 'k', 'y', 'Y')
  if r[1] == ARGV[a + 2] and r[2] == fence then
    if not r[3] then
      -- Nothing to remove: but out of memory, a script may not begin with a write that grows.
      redis.call('HDEL', key, '')
      redis.call('HSET', key, 'l', '1')
    end
    leases[#leases + 1] = int(now + num(lease))
    leases[#leases + 1] = member(idOf(key), commands[num(c)])
    replies[n] = 1
  else
    replies[n] = r[4] == fence and 2 or 0
  end
end
if #leases > 0 then
  redis.call('ZREM', T, '')
  redis.call('ZADD', T, unpack(leases))
  keepFor(T, ${DEADLINE_TTL})
end
replies[#replies + 1] = now
return replies
`

/**
 * KEYS    at the end the record
 * ARGV    worker, fence, bytes
 */
export const PUBLISH_PROGRESS: string = `
local key = KEYS[K + 1]
local h = redis.call('HMGET', key, 'o', 'f', 'w', 'n', 'y', 'N')
if h[1] ~= ARGV[A + 1] or h[2] ~= ARGV[A + 2] then return 0 end
redis.call('HSET', key, 'g', ARGV[A + 3])
for _, one in ipairs(parksOf(key, { w = h[3], n = h[4], y = h[5] })) do
  if num(one.generation) <= num(h[5]) then post(one.park, 'p\\n' .. ARGV[A + 3]) end
end
sendMail()
return 1
`

/**
 * KEYS    at the end the record and its log
 * ARGV    worker, fence, how many lines are kept, and for how long, how many lines of this attempt there were before these,
 *         lines …
 */
export const APPEND_LOG: string = `
local key, log, first = KEYS[K + 1], KEYS[K + 2], A + 6
local h = redis.call('HMGET', key, 'o', 'f', 'j')
if h[1] ~= ARGV[A + 1] or h[2] ~= ARGV[A + 2] then return 0 end
-- Those that are there already were sent twice.
local fence, count = string.match(h[3] or '', '^(%d+) (%d+)$')
local before = num(ARGV[A + 5])
local known = fence == h[2] and math.max(0, num(count) - before) or 0
if first + known > #ARGV then return 1 end
redis.call('HSET', key, 'j', h[2] .. ' ' .. int(before + #ARGV - first + 1))
for n = first + known, #ARGV do redis.call('RPUSH', log, ARGV[n]) end
redis.call('LTRIM', log, -num(ARGV[A + 3]), -1)
keepFor(log, num(ARGV[A + 4]))
return 1
`

/**
 * ARGV    most stalls, bytes of the failure, its ttl, linger, how many failed jobs are kept, and how long, largest
 *         message; then for each job the number of its command
 * returns for each job 0 nothing was due, 1 promoted, 2 stalled, or 3 failed; then once the server's time in ms
 */
export const PROCESS_DUE: string = `
local most, first = num(ARGV[A + 1]), A + 7
clock()

local function tick(n)
  local key, command = KEYS[K + n], commands[num(ARGV[first + n])]
  local id = idOf(key)
  local name = member(id, command)
  local h = redis.call('HMGET', key, 'y', 'Y', 'o', 'f', 'd', 'l', 'z', 'w', 'n', 'N', 'r')
  local at = redis.call('ZSCORE', T, name)
  if not at or num(at) > now then return 0 end
  redis.call('ZREM', T, name)
  if h[5] or not h[1] then redis.call('ZREM', D, name) end
  if not h[1] or num(h[2]) >= num(h[1]) then return 0 end
  command.more = true
  if h[5] then
    redis.call('HDEL', key, 'd')
    keepFor(key, ${PENDING_JOB_TTL})
    line(command, id, h[11], false)
    return 1
  end
  local function fail(bytes)
    local terms = { foreign = true, kind = 'e', ttl = num(ARGV[A + 3]), linger = num(ARGV[A + 4]), keep = num(ARGV[A + 5]),
      age = num(ARGV[A + 6]), limit = num(ARGV[A + 7]) }
    local r = { y = h[1], f = h[4], w = h[8], n = h[9], N = h[10] }
    if settle(key, r, terms, bytes) then follow(key, command, r) end
    return 3
  end
  if not h[3] or h[3] == '' then
    local fits, reason = pcall(grown, id, h[4], us)
    if not fits then return fail('j' .. cjson.encode({ name = 'Error', message = reason })) end
    putFirst(command, id)
    return 1
  end
  local worker, stalls = h[3], num(h[7])
  redis.call('LREM', command.i, 0, worker)
  redis.call('HDEL', command.r, worker)
  post(worker, 's')
  -- Before its second stall it could not start without having been accepted.
  if h[6] or stalls == 0 then stalls = stalls + 1 end
  redis.call('HSET', key, 'z', stalls)
  if stalls > most then return fail(ARGV[A + 2]) end
  redis.call('HDEL', key, 'o', 'l')
  keepFor(key, ${PENDING_JOB_TTL})
  putFirst(command, id)
  return 2
end

local replies = {}
for n = 1, #KEYS - K do
  local done, reply = pcall(tick, n)
  -- A record that cannot be read would keep all that is due after it waiting.
  if not done then redis.call('ZREM', T, member(idOf(KEYS[K + n]), commands[num(ARGV[first + n])])) end
  replies[n] = done and reply or 0
end
for _, command in ipairs(commands) do
  if command.more then dispatch(command) end
end
sendMail()
deliver()
replies[#replies + 1] = now
return replies
`
