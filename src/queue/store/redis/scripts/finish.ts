import { PENDING_JOB_TTL } from '../../store.ts'

/**
 * Ends attempts. All records are read before anything is written.
 *
 * KEYS    at the end one record each
 * ARGV    1 message limit; then for each job:
 *         1 `<command> <kind> <ttl> <outcomeRetention> <delay> <retainCount> <retainAge> <releasesSlot>`
 *         2 fence  3 worker  4 bytes; kind: v value, e error, r retry, h requeue
 * returns for each job 1, 2 when that was reported before, 0 when the attempt was lost, or why it failed; then, once, the server's time in ms, or 0
 */
export const FINISH: string = /* lua */ `
local messageLimit, jobArgs = num(ARGV[argBase + 1]), argBase + 1

local optionsOf = memoized(function(text)
  local command, kind, ttl, outcomeRetention, delay, retainCount, retainAge, releasesSlot =
    string.match(text, '^(%d+) (%a) (%d+) (%d+) (%d+) (%d+) (%d+) (%d)$')
  return { command = commands[num(command)], kind = kind, ttl = num(ttl), outcomeRetention = num(outcomeRetention),
    delay = num(delay), retainCount = num(retainCount), retainAge = num(retainAge), releasesSlot = releasesSlot == '1',
    messageLimit = messageLimit }
end)

-- The reply for an attempt that is not held: 2 when it has been ended in this way already, by its worker.
local function replyToRepetition(key, kind, fence, bytes)
  local outcomeFence, outcomeKind, returned, externallyEndedFence = unpack(redis.call('HMGET', key, 's', 'k', 'R', 'F'))
  -- It was returned, whatever has ended the job since.
  if kind == 'r' or kind == 'h' then return returned == kind .. fence and 2 or 0 end
  if externallyEndedFence == fence or outcomeFence ~= fence or outcomeKind ~= kind then return 0 end
  return redis.call('HGET', key, kind) == bytes and 2 or 0
end

-- Ends an attempt as retry or requeue: the job gets another attempt.
local function returnAttempt(job, command, kind, delay)
  local key, id = job.key, idOf(job.key)
  redis.call('HDEL', key, 'o', 'l', 'g')
  redis.call('HSET', key, 'R', kind .. job.fence)
  if kind == 'r' then
    redis.pcall('HINCRBY', key, 'a', 1)
    if not job.isAccepted then tally('R') end
  elseif job.isAccepted then
    tally('H')
  end
  expire(key, delay + ${PENDING_JOB_TTL})
  if delay > 0 then return delayJob(key, dueMember(id, command), delay) end
  if kind == 'h' then
    requeueFirst(command, id)
  else
    pushReady(command, id, redis.call('HGET', key, 'r'), false)
  end
  command.hasReady = true
end

local replies, accepted, members, endedAs = {}, {}, {}, {}
for n = 1, #KEYS - keyBase do
  local key, a = KEYS[keyBase + n], jobArgs + 4 * (n - 1)
  local options, fence, worker = optionsOf(ARGV[a + 1]), ARGV[a + 2], ARGV[a + 3]
  local found = redis.pcall('HMGET', key, 'o', 'f', 'w', 'n', 'y', 'N', 'l')
  local owner, lastFence, creatorPark, parkedCount, generation, nextGeneration, isAccepted = unpack(found)
  if found.err then
    replies[n] = found.err
  elseif owner ~= worker or lastFence ~= fence then
    replies[n] = replyToRepetition(key, options.kind, fence, ARGV[a + 4])
  elseif endedAs[key] then
    -- A repetition in the same call.
    replies[n] = endedAs[key] == options.kind .. ARGV[a + 4] and 2 or 0
  else
    replies[n] = 1
    endedAs[key] = options.kind .. ARGV[a + 4]
    members[#members + 1] = dueMember(idOf(key), options.command)
    accepted[#accepted + 1] = { key = key, options = options, worker = worker, bytes = ARGV[a + 4], fence = fence,
      creatorPark = creatorPark, parkedCount = parkedCount, generation = generation, nextGeneration = nextGeneration,
      isAccepted = isAccepted }
  end
end
if #members > 0 then redis.call('ZREM', deadlinesKey, unpack(members)) end
local freed = {}
for _, job in ipairs(accepted) do
  local options = job.options
  local command, kind = options.command, options.kind
  if kind == 'r' or kind == 'h' then
    returnAttempt(job, command, kind, options.delay)
  elseif settle(job, options, job.bytes) then
    startNext(job, command)
    command.hasReady = true
  end
  if options.releasesSlot then
    local workers = freed[command]
    if workers then workers[#workers + 1] = job.worker else freed[command] = { job.worker } end
  end
end
for _, command in ipairs(commands) do
  if freed[command] then releaseSlots(command, freed[command]) end
  if command.hasReady then assignReady(command) end
end
writeTotals()
sendOutbox()
sendBatches()
replies[#replies + 1] = now or 0
return replies
`
