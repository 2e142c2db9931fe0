import { PENDING_JOB_TTL } from '../../store.ts'
import { FLAGS } from '../wire.ts'
import { GENERATION_FIELDS } from './prelude.ts'

/**
 * Submits jobs.
 *
 * KEYS    at the end one record each
 * ARGV    1 inbox  2 broadcast channel  3 message that requests capacity  4 how many may be parked on a record; for each
 *         command its name and how many of the jobs are for it; then for each job:
 *         1 `<command> <flags> <delay> <priority>`  2 nonce  3 payload  4 options
 * returns for each job 'C generation' created, 'J generation' joined, 'X' conflict, 'U' unknown command, 'O' overloaded,
 *         '!reason' failed, or a pair: 'V fence generation' or 'E fence generation' cached, and the bytes
 */
export const SUBMIT: string = /* lua */ `
local inbox, broadcastChannel, capacityRequest, maxParked =
  ARGV[argBase + 1], ARGV[argBase + 2], ARGV[argBase + 3], num(ARGV[argBase + 4])
for n, command in ipairs(commands) do
  command.name, command.count = ARGV[argBase + 3 + 2 * n], num(ARGV[argBase + 4 + 2 * n])
end
local jobArgs = argBase + 4 + 2 * #commands
clock()
local firstGeneration = int(us)

-- The next free slot for a job, if there is one. Used slots are removed from the list at the end.
local function nextSlot(command)
  if not command.slots then
    command.slots, command.used = redis.call('LRANGE', command.slotsKey, 0, command.count - 1), 0
  end
  if command.slots[1] == PAUSED_MARKER then return nil end
  return command.slots[command.used + 1]
end

-- The order of a job by its priority; nil if it has none.
local function rankOf(n, priority)
  return priority > 0 and int(priority) .. ' ' .. string.format('%016.0f%03d', us, n) or nil
end

-- Creates a generation. previous: generation, fence and listedIn of the record, if it exists. Returns the generation.
local function create(n, key, id, command, previous, options, nonce, payload, jobOptions)
  local generation = previous.generation and int(nextNumber(id, previous.generation, us)) or firstGeneration
  nextNumber(id, previous.fence, us)
  local set = { 'y', generation, 'm', command.name }
  addPayload(set, payload)
  local function put(name, value) set[#set + 1] = name set[#set + 1] = value end
  if options.awaited then put('w', inbox .. nonce) else put('c', nonce) end
  if jobOptions ~= '' then put('b', jobOptions) end
  if options.abortUnwanted then put('u', '1') end
  local delay, rank = options.delay, rankOf(n, options.priority)
  if rank then put('r', rank) end
  if previous.generation then
    if previous.listedIn then redis.call('ZREM', previous.listedIn == 'x' and failedKey or completedKey, id) end
    redis.call('HDEL', key, 'u', 'r', 'd', 'L', ${GENERATION_FIELDS})
  end
  local worker, fence = delay == 0 and nextSlot(command), nil
  if worker then
    fence = fenceAfter(previous.fence)
    put('o', worker)
    put('f', fence)
  end
  -- This write fails when Redis is out of memory, so no slot is used before.
  redis.call('HSET', key, unpack(set))
  tally('s')
  expire(key, delay + ${PENDING_JOB_TTL})
  if worker then
    command.used = command.used + 1
    assign(command, id, worker, { options = jobOptions, generation = generation, payload = payload }, fence)
  elseif delay > 0 then
    delayNew(key, id, command, delay)
  else
    pushReady(command, id, rank, options.lifo)
  end
  return generation
end

local optionsOf = memoized(function(text)
  local command, flags, delay, priority = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
  local function has(flag) return math.floor(flags / flag) % 2 == 1 end
  return { command = commands[num(command)], delay = num(delay), priority = num(priority),
    awaited = has(${FLAGS.awaited}), joins = has(${FLAGS.join}), reruns = has(${FLAGS.rerun}), lifo = has(${FLAGS.lifo}),
    abortUnwanted = has(${FLAGS.abortUnwanted}), requiresWorker = has(${FLAGS.requiresWorker}),
    isExclusive = has(${FLAGS.exclusive}) }
end)

local function submit(n)
  local key, a = KEYS[keyBase + n], jobArgs + 4 * (n - 1)
  local id, options, nonce, payload, jobOptions = idOf(key), optionsOf(ARGV[a + 1]), ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  local command = options.command
  if not redis.call('HGET', key, 'y') then
    if options.requiresWorker and redis.call('EXISTS', command.workersKey) == 0 then return 'U' end
    return 'C ' .. create(n, key, id, command, {}, options, nonce, payload, jobOptions)
  end
  local park = inbox .. nonce
  local generation, settledGeneration, kind, valueFreshUntil, errorFreshUntil, outcomeFence, lastFence, creatorPark,
    creatorNonce, parkedGeneration, parkedCount, firstPiece, nextGeneration, listedIn, nextNonce, abortUnwanted, owner =
    unpack(redis.call('HMGET', key, 'y', 'Y', 'k', 'vu', 'eu', 's', 'f', 'w', 'c',
      '@' .. park, 'n', 'p', 'N', 'L', 'C', 'u', 'o'))
  local function matches() return options.joins or payload == payloadOf(key, firstPiece) end
  local isRepeated = creatorPark == park or creatorNonce == nonce

  if num(settledGeneration) < num(generation) then
    if isRepeated then return 'C ' .. generation end
    if nextNonce == nonce then return 'C ' .. nextGeneration end
    if parkedGeneration then return 'J ' .. parkedGeneration end
    if options.awaited and num(parkedCount) >= maxParked then return 'O' end
    local joined, set, status = generation, {}, 'J'
    if options.isExclusive then
      if not owner or owner == '' or nextGeneration then return 'X' end
      joined, status = int(nextNumber(id, generation, us)), 'C'
      local dueAt = options.delay > 0 and int(now + options.delay) or '0'
      local rank = rankOf(n, options.priority) or ''
      set = { 'N', joined, 'P', payload, 'B', jobOptions, 'C', nonce, 'D', dueAt .. ' ' .. rank }
    -- The next generation has the newest payload, even if that is the payload that runs now.
    elseif not matches() or (options.reruns and nextGeneration) then
      if nextGeneration and payload == redis.call('HGET', key, 'P') then
        joined = nextGeneration
      else
        if not options.reruns then return 'X' end
        if not nextGeneration then status = 'C' end
        joined = nextGeneration or int(nextNumber(id, generation, us))
        set = { 'N', joined, 'P', payload, 'B', jobOptions, 'C', nonce }
      end
    end
    if options.awaited then
      for _, x in ipairs({ '@' .. park, joined, 'n', num(parkedCount) + 1 }) do set[#set + 1] = x end
    end
    if #set > 0 then redis.call('HSET', key, unpack(set)) end
    if status == 'C' then tally('s') end
    -- A submitter that does not ask for abortUnwanted relies on the job, whether it waits or not.
    if abortUnwanted and not options.abortUnwanted then redis.call('HDEL', key, 'u') end
    return status .. ' ' .. joined
  end

  local isFresh = not options.isExclusive and ((kind == 'v' and num(valueFreshUntil) > now) or (kind == 'e' and num(errorFreshUntil) > now))
  if isRepeated and not options.awaited then return 'C ' .. generation end
  if isFresh then
    if matches() then
      return (kind == 'v' and 'V ' or 'E ') .. int(num(outcomeFence)) .. ' ' .. settledGeneration, redis.call('HGET', key, kind)
    end
    if not options.reruns then return 'X' end
  end
  -- A repetition whose job has finished meanwhile is not run again.
  if isRepeated then return 'C ' .. generation end
  if options.requiresWorker and redis.call('EXISTS', command.workersKey) == 0 then return 'U' end
  local previous = { generation = generation, fence = lastFence, listedIn = listedIn }
  return 'C ' .. create(n, key, id, command, previous, options, nonce, payload, jobOptions)
end

local replies = {}
for n = 1, #KEYS - keyBase do
  local isDone, reply, bytes = pcall(submit, n)
  if not isDone then
    reply = '!' .. (type(reply) == 'table' and reply.err or tostring(reply))
  end
  replies[n] = bytes and { reply, bytes } or reply
end
for _, command in ipairs(commands) do
  if command.used and command.used > 0 then redis.call('LTRIM', command.slotsKey, command.used, -1) end
  if command.hasFirstReady and redis.call('EXISTS', command.workersKey) == 0 then
    redis.pcall('PUBLISH', broadcastChannel, capacityRequest)
  end
end
writeTotals()
sendOutbox()
sendBatches()
return replies
`
