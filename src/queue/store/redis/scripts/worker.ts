import { PENDING_JOB_TTL } from '../../store.ts'
import { DEADLINE_TTL } from './dispatch.ts'
import { WORKER_TTL } from './prelude.ts'

/**
 * Sets the capacity of a worker and assigns ready jobs to its slots.
 *
 * ARGV    1 worker  2 free slots  3 name of the command  4 free slots that the last announcement left to it, '': not known
 * returns the server's time in ms; how many of the former slots were used; the number of jobs that it was assigned; 1 if jobs are
 *         ready that one step cannot assign
 */
export const SET_CAPACITY: string = /* lua */ `
local command, worker, former = commands[1], ARGV[argBase + 1], ARGV[argBase + 4]
local left = redis.call('LREM', command.slotsKey, 0, worker)
-- The slots of a worker that is not known were removed, not used.
local isKnown = former ~= '' and redis.call('HEXISTS', command.workersKey, worker) == 1
local used = isKnown and math.max(0, num(former) - left) or 0
local count = math.max(0, num(ARGV[argBase + 2]) - used)
local slots = {}
for n = 1, count do slots[n] = worker end
for from = 1, count, 1000 do
  redis.call('RPUSH', command.slotsKey, unpack(slots, from, math.min(from + 999, count)))
end
local paused = redis.call('SMISMEMBER', pausedKey, '', command.segment)
local isPaused = paused[1] == 1 or paused[2] == 1
local hasMarker = redis.call('LINDEX', command.slotsKey, 0) == PAUSED_MARKER
if isPaused and not hasMarker then redis.call('LPUSH', command.slotsKey, PAUSED_MARKER) end
-- A resume of all commands reaches known commands only.
if hasMarker and not isPaused then redis.call('LPOP', command.slotsKey) end
expire(command.slotsKey, ${WORKER_TTL})
redis.call('HSET', command.workersKey, worker, count)
expire(command.workersKey, ${WORKER_TTL})
registerCommand(command, ARGV[argBase + 3])
expire(totalsKey, ${PENDING_JOB_TTL})
extend(pausedKey, ${PENDING_JOB_TTL})
assignReady(command)
local assigned = batches[worker] and #batches[worker] or 0
sendBatches()
clock()
return { now, used, assigned, saturatedWorker and 1 or 0 }
`

/**
 * Removes a worker. Its last message, 'w', is sent after all deliveries to it.
 *
 * ARGV    1 worker
 */
export const REMOVE_WORKER: string = /* lua */ `
local command, worker = commands[1], ARGV[argBase + 1]
redis.call('LREM', command.slotsKey, 0, worker)
redis.call('HDEL', command.workersKey, worker)
if areTooManyKnown() then forgetNeedless(command.segment) end
publish(worker, 'w')
sendOutbox()
return 1
`

/**
 * Extends the leases of attempts.
 *
 * KEYS    at the end one record each
 * ARGV    for each job: 1 `<command> <fence> <lease>`  2 worker  3 the worker that it is given to; '': it stays
 * returns for each job 1 held, 0 lost, 2 cancelled; then, once, the server's time in ms
 */
export const RENEW: string = /* lua */ `
clock()
local replies, leases = {}, {}
for n = 1, #KEYS - keyBase do
  local key, a = KEYS[keyBase + n], argBase + 3 * (n - 1)
  local command, fence, lease = string.match(ARGV[a + 1], '^(%d+) (%d+) (%d+)$')
  local worker, holder = ARGV[a + 2], ARGV[a + 3]
  -- A record that cannot be read is lost; the others are not.
  local owner, lastFence, isAccepted, outcomeFence = unpack(redis.pcall('HMGET', key, 'o', 'f', 'l', 's'))
  -- A repetition finds it given already.
  local isHeld = owner == worker or holder ~= '' and owner == holder
  if isHeld and lastFence == fence then
    if not isAccepted or holder ~= '' then
      -- Removes nothing: when Redis is out of memory, a script may not begin with a write that grows.
      redis.call('HDEL', key, '')
      redis.call('HSET', key, 'l', '1', 'o', holder == '' and worker or holder)
      if not isAccepted then tally('a') end
    end
    leases[#leases + 1] = int(now + num(lease))
    leases[#leases + 1] = dueMember(idOf(key), commands[num(command)])
    replies[n] = 1
  else
    replies[n] = outcomeFence == fence and 2 or 0
  end
end
if #leases > 0 then
  redis.call('ZREM', deadlinesKey, '')
  redis.call('ZADD', deadlinesKey, unpack(leases))
  expire(deadlinesKey, ${DEADLINE_TTL})
end
writeTotals()
replies[#replies + 1] = now
return replies
`

/**
 * Stores the progress of an attempt and sends it to the waiters of its generation.
 *
 * KEYS    at the end the record
 * ARGV    1 worker  2 fence  3 bytes
 */
export const PUBLISH_PROGRESS: string = /* lua */ `
local key, bytes = KEYS[keyBase + 1], ARGV[argBase + 3]
local owner, lastFence, creatorPark, parkedCount, generation = unpack(redis.call('HMGET', key, 'o', 'f', 'w', 'n', 'y'))
if owner ~= ARGV[argBase + 1] or lastFence ~= ARGV[argBase + 2] then return 0 end
redis.call('HSET', key, 'g', bytes)
local job = { key = key, creatorPark = creatorPark, parkedCount = parkedCount, generation = generation }
for _, waiter in ipairs(parksOf(job)) do
  if num(waiter.generation) <= num(generation) then publish(waiter.park, 'p\\n' .. bytes) end
end
sendOutbox()
return 1
`

/**
 * Appends lines to the log of a job.
 *
 * KEYS    at the end the record and the log
 * ARGV    1 worker  2 fence  3 most lines  4 how long the log is kept, ms
 *         5 lines of this attempt that were appended before, '': not known; then the lines
 */
export const APPEND_LOG: string = /* lua */ `
local key, log, firstLine = KEYS[keyBase + 1], KEYS[keyBase + 2], argBase + 6
local owner, lastFence, logged = unpack(redis.call('HMGET', key, 'o', 'f', 'j'))
if owner ~= ARGV[argBase + 1] or lastFence ~= ARGV[argBase + 2] then return 0 end
-- Lines of a repeated call are skipped.
local loggedFence, loggedLines = string.match(logged or '', '^(%d+) (%d+)$')
local known = loggedFence == lastFence and num(loggedLines) or 0
local before = ARGV[argBase + 5] == '' and known or num(ARGV[argBase + 5])
local skipped = math.max(0, known - before)
if firstLine + skipped > #ARGV then return 1 end
redis.call('HSET', key, 'j', lastFence .. ' ' .. int(before + #ARGV - firstLine + 1))
for n = firstLine + skipped, #ARGV do redis.call('RPUSH', log, ARGV[n]) end
redis.call('LTRIM', log, -num(ARGV[argBase + 3]), -1)
expire(log, num(ARGV[argBase + 4]))
return 1
`

/**
 * Makes delayed jobs ready and requeues stalled ones, as far as they are due.
 *
 * KEYS    at the end one record each
 * ARGV    1 most stalls  2 bytes of the failure  3 its ttl  4 outcomeRetention  5 retainCount  6 retainAge
 *         7 message limit; then for each job the number of its command
 * returns for each job 0 nothing was due, 1 promoted, 2 stalled, 3 failed; then, once, the server's time in ms
 */
export const PROCESS_DUE: string = /* lua */ `
local maxStalls, failure, jobArgs = num(ARGV[argBase + 1]), ARGV[argBase + 2], argBase + 7
clock()

local function processDue(n)
  local key, command = KEYS[keyBase + n], commands[num(ARGV[jobArgs + n])]
  local id = idOf(key)
  local member = dueMember(id, command)
  local job, isAccepted, stallCount, rank = readJob(key, 'l', 'z', 'r')
  local at = redis.call('ZSCORE', deadlinesKey, member)
  if not at or num(at) > now then return 0 end
  redis.call('ZREM', deadlinesKey, member)
  if job.isDelayed or not job.generation then redis.call('ZREM', delayedKey, member) end
  if not job.generation or job.isFinished then return 0 end
  command.hasReady = true
  if job.isDelayed then
    redis.call('HDEL', key, 'd')
    expire(key, ${PENDING_JOB_TTL})
    pushReady(command, id, rank, false)
    return 1
  end
  local function fail(bytes)
    local options = { isExternal = true, kind = 'e', ttl = num(ARGV[argBase + 3]), outcomeRetention = num(ARGV[argBase + 4]),
      retainCount = num(ARGV[argBase + 5]), retainAge = num(ARGV[argBase + 6]), messageLimit = num(ARGV[argBase + 7]) }
    if settle(job, options, bytes) then startNext(job, command) end
    return 3
  end
  if not job.worker then
    -- A ready job that assignReady could not read.
    local isExact, reason = pcall(nextNumber, id, job.fence, us)
    if not isExact then return fail('j' .. cjson.encode({ name = 'Error', message = reason })) end
    requeueFirst(command, id)
    return 1
  end
  local stalls = num(stallCount)
  redis.call('LREM', command.slotsKey, 0, job.worker)
  redis.call('HDEL', command.workersKey, job.worker)
  publish(job.worker, 's')
  -- After its first stall, an attempt cannot have started unless it was accepted.
  if isAccepted or stalls == 0 then stalls = stalls + 1 end
  redis.call('HSET', key, 'z', stalls)
  if stalls > maxStalls then return fail(failure) end
  redis.call('HDEL', key, 'o', 'l')
  expire(key, ${PENDING_JOB_TTL})
  requeueFirst(command, id)
  return 2
end

local replies = {}
for n = 1, #KEYS - keyBase do
  local isDone, reply = pcall(processDue, n)
  -- A record that cannot be read would keep all that is due after it from being processed.
  if not isDone then redis.call('ZREM', deadlinesKey, dueMember(idOf(KEYS[keyBase + n]), commands[num(ARGV[jobArgs + n])])) end
  replies[n] = isDone and reply or 0
end
for _, command in ipairs(commands) do
  if command.hasReady then assignReady(command) end
end
writeTotals()
sendOutbox()
sendBatches()
replies[#replies + 1] = now
return replies
`
