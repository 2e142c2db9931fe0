import { ID_LENGTH } from '../../../../kernel/keys.ts'
import { PENDING_JOB_TTL } from '../../store.ts'
import { GENERATION_FIELDS } from './prelude.ts'

/** Waiters are sent an outcome of up to so many bytes for all of them; beyond it, a notice to query it. */
const MAX_NOTICE_BYTES = 1024 * 1024

/**
 * Ends generations.
 *
 * A job here has the fields of its record: key, generation, fence, creatorPark, parkedCount, nextGeneration; from finish
 * also isAccepted; from readJob also worker, isDelayed, isFinished. Options of an ending: kind, ttl, outcomeRetention, retainCount, retainAge,
 * messageLimit; isExternal: not by its worker; endsNext: also for the waiters of the next generation.
 *
 *   readJob(key, …)                              reads a job; returns it and the further fields
 *   parksOf(job)                                 the parks of a record, each with its generation; with its field unless it
 *                                                is that of the creator
 *   settle(job, options, bytes)                  ends the generation; returns whether another one follows
 *   startNext(job, command)                      begins the next generation
 *   terminateJob(job, kind, bytes, outcomeRetention, messageLimit)
 *                                                ends a job that its worker has not ended, and with it the next
 *                                                generation: its waiters receive the same outcome
 */
export const SETTLE: string = /* lua */ `
local function readJob(key, ...)
  local found = redis.call('HMGET', key, 'y', 'Y', 'o', 'f', 'w', 'n', 'N', 'd', ...)
  local generation, settledGeneration, worker, fence, creatorPark, parkedCount, nextGeneration, dueAt = unpack(found)
  local job = { key = key, generation = generation, fence = fence, creatorPark = creatorPark, parkedCount = num(parkedCount),
    nextGeneration = nextGeneration, worker = worker ~= '' and worker or nil, isDelayed = dueAt,
    isFinished = num(settledGeneration) >= num(generation) }
  return job, unpack(found, 9)
end

local function parksOf(job)
  local parks = {}
  if job.creatorPark and job.creatorPark ~= '' then parks[1] = { park = job.creatorPark, generation = job.generation } end
  if num(job.parkedCount) == 0 then return parks end
  local fields = {}
  for _, field in ipairs(redis.call('HKEYS', job.key)) do
    if string.sub(field, 1, 1) == '@' then fields[#fields + 1] = field end
  end
  -- By name, since the payload and the last outcome may be large.
  for from = 1, #fields, 1000 do
    local generations = redis.call('HMGET', job.key, unpack(fields, from, math.min(from + 999, #fields)))
    for n, generation in ipairs(generations) do
      local field = fields[from + n - 1]
      parks[#parks + 1] = { field = field, park = string.sub(field, 2), generation = generation }
    end
  end
  return parks
end

-- Keeps the latest jobs of a list of finished jobs. The records of the others expire with their outcomes.
local function trimFinished(set, count, outcomeRetention)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now))
  local excess = redis.call('ZCARD', set) - count
  if excess > 0 then
    for _, id in ipairs(redis.call('ZRANGE', set, 0, excess - 1)) do
      local key = jobKey(id)
      local found = redis.pcall('HMGET', key, 'vu', 'eu', 'y', 'Y')
      if not found.err then
        local valueFreshUntil, errorFreshUntil, generation, settledGeneration = unpack(found)
        if generation and num(settledGeneration) >= num(generation) then
          redis.pcall('HDEL', key, 'L')
          expire(key, math.max(outcomeRetention, num(valueFreshUntil) - now, num(errorFreshUntil) - now))
        end
      end
    end
    redis.call('ZREMRANGEBYRANK', set, 0, excess - 1)
  end
  -- The list expires with its latest entry, whichever process has added that.
  local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
  if last then expire(set, num(last) - now) end
end

-- Notifies the waiters of a generation and takes them off the record. Returns how many it took off beside the creator.
local function notifyWaiters(job, endsNext, message)
  if num(job.parkedCount) == 0 then
    if job.creatorPark and job.creatorPark ~= '' then publish(job.creatorPark, message) end
    return 0
  end
  local gone = {}
  for _, waiter in ipairs(parksOf(job)) do
    if not job.nextGeneration or endsNext or num(waiter.generation) <= num(job.generation) then
      publish(waiter.park, message)
      if waiter.field then gone[#gone + 1] = waiter.field end
    end
  end
  removeFields(job.key, gone)
  return #gone
end

local function settle(job, options, bytes)
  local key, kind, ttl, fence = job.key, options.kind, options.ttl, job.fence or '0'
  -- A process that is sent too much at once loses its subscription.
  local isTooLarge = #bytes > options.messageLimit or #bytes * num(job.parkedCount) > ${MAX_NOTICE_BYTES}
  local message = isTooLarge and 'm' or kind .. ' ' .. fence .. '\\n' .. bytes
  local gone = notifyWaiters(job, options.endsNext, message)
  local set = { 'o', '', 'w', '', 'k', kind, 's', fence, 'Y', job.generation }
  local function put(name, value) set[#set + 1] = name set[#set + 1] = value end
  if kind ~= 'x' then
    put(kind, bytes)
    if ttl > 0 then
      clock()
      put(kind .. 'u', int(now + ttl))
    end
  end
  if gone > 0 then put('n', num(job.parkedCount) - gone) end
  -- A late finish of its worker is refused.
  if options.isExternal then put('F', fence) end
  -- A repetition of the submission is recognised by its nonce from now on.
  if job.creatorPark and job.creatorPark ~= '' then put('c', string.sub(job.creatorPark, ${ID_LENGTH + 1})) end
  local follows = job.nextGeneration and not options.endsNext
  local list = nil
  if not follows and options.retainCount > 0 and options.retainAge > 0 then
    if kind == 'e' then list = failedKey elseif kind == 'v' then list = completedKey end
  end
  if list then put('L', list == failedKey and 'x' or 'c') end
  redis.call('HSET', key, unpack(set))
  if kind ~= 'x' then tally((options.isExternal or job.isAccepted) and kind or string.upper(kind)) end
  if follows then return true end
  expire(key, math.max(ttl, options.outcomeRetention, list and options.retainAge or 0))
  if list then
    clock()
    redis.call('ZADD', list, int(now + options.retainAge), idOf(key))
    trimFinished(list, options.retainCount, options.outcomeRetention)
  end
  return false
end

local function startNext(job, command)
  local payload, jobOptions, nonce, start = unpack(redis.call('HMGET', job.key, 'P', 'B', 'C', 'D'))
  redis.call('HDEL', job.key, 'N', 'P', 'B', 'C', 'D', ${GENERATION_FIELDS})
  local set = { 'y', job.nextGeneration, 'c', nonce or '' }
  addPayload(set, payload or '')
  if jobOptions and jobOptions ~= '' then set[#set + 1] = 'b' set[#set + 1] = jobOptions end
  local dueAt, rank = string.match(start or '', '^(%d+) (.*)$')
  if rank == '' then redis.call('HDEL', job.key, 'r') elseif rank then set[#set + 1] = 'r' set[#set + 1] = rank end
  redis.call('HSET', job.key, unpack(set))
  if num(dueAt) > 0 then clock() end
  if num(dueAt) > (now or 0) then
    expire(job.key, num(dueAt) - now + ${PENDING_JOB_TTL})
    return delayNew(job.key, idOf(job.key), command, num(dueAt) - now)
  end
  expire(job.key, ${PENDING_JOB_TTL})
  pushReady(command, idOf(job.key), redis.call('HGET', job.key, 'r'), false)
end

local function terminateJob(job, kind, bytes, outcomeRetention, messageLimit)
  local nextNonce = job.nextGeneration and redis.call('HGET', job.key, 'C')
  removeFields(job.key, { 'N', 'P', 'B', 'C', 'D', 'd' })
  if job.nextGeneration then
    job.generation = job.nextGeneration
    redis.call('HSET', job.key, 'y', job.generation)
  end
  settle(job, { isExternal = true, kind = kind, ttl = 0, outcomeRetention = outcomeRetention,
    retainCount = 0, retainAge = 0, messageLimit = messageLimit, endsNext = true }, bytes)
  -- The latest submission is the one that may still be sent again.
  if nextNonce then redis.call('HSET', job.key, 'c', nextNonce) end
end
`

/**
 * Queries the outcomes of generations, and parks the callers whose generation has not ended.
 *
 * KEYS    at the end one record each
 * ARGV    1 inbox  2 how many may be parked on a record; then for each job: 1 generation  2 nonce, or '' not to park
 * returns for each job two values: 'P' pending, '-' gone, or 'V fence', 'E fence', 'X fence'; and the bytes
 */
export const QUERY_OUTCOMES: string = /* lua */ `
local inbox, maxParked, replies = ARGV[argBase + 1], num(ARGV[argBase + 2]), {}
for n = 1, #KEYS - keyBase do
  local key, a = KEYS[keyBase + n], argBase + 2 + 2 * (n - 1)
  local queried, nonce = num(ARGV[a + 1]), ARGV[a + 2]
  local park = inbox .. nonce
  -- A record that cannot be read counts as gone. One that cannot be written is queried again later.
  local generation, settledGeneration, kind, outcomeFence, creatorPark, parkedGeneration, parkedCount, nextGeneration =
    unpack(redis.pcall('HMGET', key, 'y', 'Y', 'k', 's', 'w', '@' .. park, 'n', 'N'))
  local status, bytes = '-', false
  if kind and num(settledGeneration) >= queried then
    status = string.upper(kind) .. ' ' .. int(num(outcomeFence))
    bytes = kind ~= 'x' and redis.call('HGET', key, kind)
  elseif generation and (num(generation) >= queried or num(nextGeneration) >= queried) then
    status = 'P'
    if nonce ~= '' and creatorPark ~= park and not parkedGeneration and num(parkedCount) < maxParked then
      redis.pcall('HSET', key, '@' .. park, int(queried), 'n', num(parkedCount) + 1)
    end
  end
  replies[2 * n - 1] = status
  replies[2 * n] = bytes
end
return replies
`

/**
 * Ends a job that its worker has not ended, or forgets the outcome of a finished one. Takes a leaving waiter off the record
 * before.
 *
 * KEYS    at the end the record
 * ARGV    1 park of the leaving waiter, or ''  2 kind: e error, x removed  3 bytes  4 outcomeRetention
 *         5 'always', 'unwanted': only if no waiter is left and the submissions allow it, or 'never'  6 message limit
 * returns 1, or 0 when there was nothing to do
 */
export const TERMINATE: string = /* lua */ `
local key, command = KEYS[keyBase + 1], commands[1]
local id, leaving, kind, outcomeRetention = idOf(key), ARGV[argBase + 1], ARGV[argBase + 2], num(ARGV[argBase + 4])
local job, rank, abortUnwanted, parkedGeneration, outcomeKind = readJob(key, 'r', 'u', '@' .. leaving, 'k')
if not job.generation then return 0 end
if leaving ~= '' then
  if job.creatorPark == leaving then
    redis.call('HDEL', key, 'w')
    redis.call('HSET', key, 'c', string.sub(leaving, ${ID_LENGTH + 1}))
    job.creatorPark = ''
  elseif parkedGeneration then
    job.parkedCount = job.parkedCount - 1
    redis.call('HDEL', key, '@' .. leaving)
    redis.call('HSET', key, 'n', job.parkedCount)
  else
    return 0
  end
end
local hasWaiters = job.parkedCount > 0 or (job.creatorPark and job.creatorPark ~= '')
local when = ARGV[argBase + 5]
if when == 'never' or (when == 'unwanted' and (not abortUnwanted or hasWaiters)) then return 0 end
if job.isFinished then
  if kind ~= 'x' or outcomeKind == 'x' then return 0 end
  redis.call('ZREM', failedKey, id)
  redis.call('ZREM', completedKey, id)
  redis.call('HDEL', key, 'v', 'e', 'L')
  redis.call('HSET', key, 'k', 'x', 'vu', '0', 'eu', '0')
  expire(key, outcomeRetention)
  return 1
end
local member = dueMember(id, command)
redis.call('ZREM', deadlinesKey, member)
if job.isDelayed then redis.call('ZREM', delayedKey, member) end
if not job.worker then
  redis.call('LREM', command.readyKey, 1, id)
  if rank and redis.call('ZREM', command.rankedKey, string.match(rank, ' (.*)$') .. id) == 1 then
    redis.call('LREM', command.readyKey, 1, PRIORITY_MARKER)
  end
end
terminateJob(job, kind, ARGV[argBase + 3], outcomeRetention, num(ARGV[argBase + 6]))
if job.worker then publish(job.worker, 'c ' .. id .. ' ' .. int(num(job.fence))) end
writeTotals()
sendOutbox()
return 1
`
