import { PENDING_JOB_TTL, POST_KNOWN_FOR } from '../../store.ts'
import { ERASURES, WORKER_TTL } from './prelude.ts'

/**
 * Reads a job.
 *
 * KEYS    at the end the record
 * returns nil, or: command, generation, settledGeneration, kind of the outcome, worker, ms until it is due or '', failures, stalls, options,
 *         progress, fence, fence of the outcome, waiters, payload, bytes of the outcome
 */
export const SNAPSHOT: string = /* lua */ `
local key = KEYS[keyBase + 1]
local command, generation, settledGeneration, kind, worker, dueAt, failures, stalls, options, progress, lastFence,
  outcomeFence, creatorPark, parkedCount, firstPiece =
  unpack(redis.call('HMGET', key, 'm', 'y', 'Y', 'k', 'o', 'd', 'a', 'z', 'b', 'g', 'f', 's', 'w', 'n', 'p'))
if not generation then return false end
local waiters = num(parkedCount) + ((creatorPark and creatorPark ~= '') and 1 or 0)
local bytes = kind and kind ~= 'x' and redis.call('HGET', key, kind)
if dueAt then clock() end
local dueIn = dueAt and int(math.max(0, num(dueAt) - now)) or ''
return { command or '', generation, settledGeneration or '0', kind or '', worker or '', dueIn, num(failures), num(stalls),
  options or '', progress or false, lastFence or '0', outcomeFence or '0', waiters, payloadOf(key, firstPiece), bytes or '' }
`

/**
 * Lists the jobs in a state.
 *
 * ARGV    1 state  2 from  3 how many
 * returns ids
 */
export const LIST: string = /* lua */ `
clock()
local state, from, count = ARGV[argBase + 1], num(ARGV[argBase + 2]), num(ARGV[argBase + 3])
local ids = {}
if state == 'waiting' then
  for _, command in ipairs(commands) do
    local length = redis.call('LLEN', command.readyKey)
    if #ids < count and from < length then
      local found = redis.call('LRANGE', command.readyKey, from, from + count - #ids - 1)
      local ranked = redis.call('ZRANGE', command.rankedKey, 0, -1)
      local markers = 0
      if #ranked > 0 and from > 0 then
        for _, id in ipairs(redis.call('LRANGE', command.readyKey, 0, from - 1)) do
          if id == PRIORITY_MARKER then markers = markers + 1 end
        end
      end
      for _, id in ipairs(found) do
        if id == PRIORITY_MARKER then
          markers = markers + 1
          id = ranked[markers] and string.sub(ranked[markers], 20)
        end
        if id then ids[#ids + 1] = id end
      end
    end
    from = math.max(0, from - length)
  end
  return ids
end
if state == 'active' then
  local isDelayed, at = {}, 0
  for _, member in ipairs(redis.call('ZRANGE', delayedKey, 0, -1)) do isDelayed[member] = true end
  for _, member in ipairs(redis.call('ZRANGE', deadlinesKey, 0, -1)) do
    if not isDelayed[member] then
      at = at + 1
      if at > from and #ids < count then ids[#ids + 1] = string.match(member, '^%S+') end
    end
  end
  return ids
end
local set = state == 'delayed' and delayedKey or state == 'failed' and failedKey or completedKey
if set ~= delayedKey then redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now)) end
for n, member in ipairs(redis.call('ZRANGE', set, from, from + count - 1)) do ids[n] = string.match(member, '^%S+') end
return ids
`

/**
 * Counts the jobs in each state.
 *
 * returns waiting, delayed, active, completed, failed
 */
export const COUNTS: string = /* lua */ `
clock()
for _, set in ipairs({ failedKey, completedKey }) do redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now)) end
local waiting = 0
for _, command in ipairs(commands) do waiting = waiting + redis.call('LLEN', command.readyKey) end
local delayed = redis.call('ZCARD', delayedKey)
return { waiting, delayed, redis.call('ZCARD', deadlinesKey) - delayed,
  redis.call('ZCARD', completedKey), redis.call('ZCARD', failedKey) }
`

/**
 * Tells what a queue has to do, also by command. Writes nothing. The keys of commands are not among KEYS: they are read from q.
 *
 * ARGV    1 commands at most  2 delayed, active and failed jobs that are counted by command, each  3 on the fields of the totals
 * returns waiting, delayed, active, completed, failed; ms until the first delayed job is due, or ''; 1 if nothing was left out;
 *         values of the fields; segments of the paused commands; for each command its segment, name, waiting, delayed, active,
 *         failed, each of these three '' if there are too many to count, id of its first job or '', ms since that was submitted
 */
export const LOAD: string = /* lua */ `
clock()
local mostCommands, mostJobs = num(ARGV[argBase + 1]), num(ARGV[argBase + 2])
local known = redis.call('HGETALL', commandsKey)
local names, segments, lengths, waiting = {}, {}, {}, 0
for n = 1, #known, 2 do
  local segment, name = known[n], known[n + 1]
  names[segment], segments[name] = name, segment
  lengths[segment] = redis.call('LLEN', base .. 'w/' .. segment)
  waiting = waiting + lengths[segment]
end

local rows, rowOf, isWhole = {}, {}, true
local function rowFor(name)
  if rowOf[name] then return rowOf[name] end
  if #rows == mostCommands then return nil end
  local segment = segments[name] or ''
  local length = lengths[segment] or 0
  local id = length > 0 and redis.call('LINDEX', base .. 'w/' .. segment, 0) or ''
  if id == PRIORITY_MARKER then id = string.sub(redis.call('ZRANGE', base .. 'z/' .. segment, 0, 0)[1] or '', 20) end
  local generation = id ~= '' and redis.call('HGET', jobKey(id), 'y')
  local age = generation and math.max(0, now - math.floor(num(generation) / 1000)) or 0
  local row = { segment, name, length, 0, 0, 0, generation and id or '', int(age) }
  rows[#rows + 1], rowOf[name] = row, row
  return row
end
-- If there are too many commands, those come first that have jobs.
local isCrowded = #known > 2 * mostCommands
for n = 1, #known, 2 do
  if not isCrowded or lengths[known[n]] > 0 then rowFor(known[n + 1]) end
end

local function commandOf(id)
  local name = redis.pcall('HGET', jobKey(id), 'm')
  return type(name) == 'string' and name or nil
end
-- The command of a member of t or d. One that has never had a worker or a ready job is not in q.
local function nameOf(member)
  local segment = string.match(member, ' (.*)$')
  if segment and not names[segment] then
    names[segment] = commandOf(string.match(member, '^%S+'))
    if names[segment] then segments[names[segment]] = segment end
  end
  return segment and names[segment]
end
local function count(name, at)
  local row = name and rowFor(name)
  if row then row[at] = row[at] + 1 else isWhole = false end
end
local delayed, deadlines = redis.call('ZCARD', delayedKey), redis.call('ZCARD', deadlinesKey)
local failed = redis.call('ZCOUNT', failedKey, '(' .. int(now), '+inf')
local isDelayed, isCounted = {}, { [4] = delayed <= mostJobs, [5] = math.max(delayed, deadlines) <= mostJobs, [6] = failed <= mostJobs }
if isCounted[4] then
  for _, member in ipairs(redis.call('ZRANGE', delayedKey, 0, -1)) do
    isDelayed[member] = true
    count(nameOf(member), 4)
  end
end
if isCounted[5] then
  for _, member in ipairs(redis.call('ZRANGE', deadlinesKey, 0, -1)) do
    if not isDelayed[member] then count(nameOf(member), 5) end
  end
end
if isCounted[6] then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', failedKey, '(' .. int(now), '+inf')) do count(commandOf(id), 6) end
end
for n = 2, #known, 2 do
  if not rowFor(known[n]) then isWhole = false end
end
for at = 4, 6 do
  if not isCounted[at] then
    isWhole = false
    for _, row in ipairs(rows) do row[at] = '' end
  end
end
local next = redis.call('ZRANGE', delayedKey, 0, 0, 'WITHSCORES')
local dueIn = next[2] and int(math.max(0, num(next[2]) - now)) or ''
return { waiting, delayed, deadlines - delayed, redis.call('ZCOUNT', completedKey, '(' .. int(now), '+inf'), failed, dueIn,
  isWhole and 1 or 0, redis.call('HMGET', totalsKey, unpack(ARGV, argBase + 3)), redis.call('SMEMBERS', pausedKey), rows }
`

/**
 * Removes the first waiting or delayed jobs. Active jobs stay.
 *
 * ARGV    1 'waiting' or 'delayed'  2 how many at most  3 outcomeRetention
 * returns how many were removed, and 1 if there may be more
 */
export const DRAIN: string = /* lua */ `
clock()
local most, outcomeRetention = num(ARGV[argBase + 2]), num(ARGV[argBase + 3])
local found, removed, unread = 0, 0, {}

-- Returns whether the record was read: it cannot be while its slot is being migrated. A finished or active job stays as it is.
local function remove(key)
  local isRead, job = pcall(readJob, key)
  if not isRead then return false end
  if not job.generation or job.isFinished or job.worker then return true end
  terminateJob(job, 'x', '', outcomeRetention, 0)
  removed = removed + 1
  return true
end

if ARGV[argBase + 1] == 'delayed' then
  local members = redis.call('ZRANGE', delayedKey, 0, most - 1)
  found = #members
  for _, member in ipairs(members) do
    if remove(jobKey(string.match(member, '^%S+'))) then
      redis.call('ZREM', delayedKey, member)
      redis.call('ZREM', deadlinesKey, member)
    else
      unread[#unread + 1] = member
    end
  end
else
  for _, command in ipairs(commands) do
    local ids, ranked = peekReady(command, most - found)
    found = found + #ids
    dropReady(command, #ids, ranked)
    local before = #unread
    for _, id in ipairs(ids) do
      if id and not remove(jobKey(id)) then unread[#unread + 1] = id end
    end
    for n = #unread, before + 1, -1 do requeueFirst(command, unread[n]) end
    if found >= most then break end
  end
end
sendOutbox()
return { removed, (found >= most and #unread < found) and 1 or 0 }
`

/**
 * Reads a key at the primary. A client that reads from replicas always sends scripts to the primary.
 *
 * KEYS    1 the key
 * ARGV    1 the Redis command; then its arguments after the key
 */
export const READ: string = /* lua */ `return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))`

/**
 * Sets the totals of a queue to 0, and forgets its posts.
 *
 * KEYS    1 n
 * ARGV    the fields of the totals
 */
export const RESET_TOTALS: string = /* lua */ `
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('HINCRBY', KEYS[1], '${ERASURES}', 1)
redis.call('PEXPIRE', KEYS[1], ${POST_KNOWN_FOR})
return 1
`

/**
 * Counts a failure that no attempt has reported.
 *
 * KEYS    1 n
 */
export const COUNT_FAILURE: string = /* lua */ `
redis.call('HINCRBY', KEYS[1], 'e', 1)
redis.call('PEXPIRE', KEYS[1], ${PENDING_JOB_TTL})
return 1
`

/**
 * Runs a finished job again.
 *
 * KEYS    at the end the record
 * ARGV    1 the finished generation
 * returns the new generation, also for a repetition; or 0
 */
export const RETRY: string = /* lua */ `
clock()
local key, command = KEYS[keyBase + 1], commands[1]
local generation, settledGeneration, kind, rank = unpack(redis.call('HMGET', key, 'y', 'Y', 'k', 'r'))
if generation and num(generation) > num(ARGV[argBase + 1]) then return generation end
if not generation or num(settledGeneration) < num(generation) or kind == 'x' then return 0 end
local id = idOf(key)
local next = int(nextNumber(id, generation, us))
redis.call('ZREM', failedKey, id)
redis.call('ZREM', completedKey, id)
redis.call('HDEL', key, 'a', 'z', 'l', 'g', 'L', 'R', 'w')
redis.call('HSET', key, 'y', next, 'vu', '0', 'eu', '0')
expire(key, ${PENDING_JOB_TTL})
pushReady(command, id, rank, false)
assignReady(command)
sendBatches()
return next
`

/**
 * Pauses a command, or all. The commands of KEYS are those that it concerns.
 *
 * ARGV    1 segment of the command, or '' for all  2 its name
 */
export const PAUSE: string = /* lua */ `
local segment, name = ARGV[argBase + 1], ARGV[argBase + 2]
redis.call('SADD', pausedKey, segment)
extend(pausedKey, ${PENDING_JOB_TTL})
if segment ~= '' then registerCommand(commands[1], name) end
for _, command in ipairs(commands) do
  if redis.call('LINDEX', command.slotsKey, 0) ~= PAUSED_MARKER then redis.call('LPUSH', command.slotsKey, PAUSED_MARKER) end
  expire(command.slotsKey, ${WORKER_TTL})
end
return 1
`

/**
 * Resumes a command, or all, and assigns ready jobs.
 *
 * ARGV    1 segment of the command, or '' for all
 */
export const RESUME: string = /* lua */ `
redis.call('SREM', pausedKey, ARGV[argBase + 1])
for _, command in ipairs(commands) do
  local paused = redis.call('SMISMEMBER', pausedKey, '', command.segment)
  if paused[1] == 0 and paused[2] == 0 then
    redis.call('LREM', command.slotsKey, 0, PAUSED_MARKER)
    assignReady(command)
  end
end
sendBatches()
return 1
`
