import { PENDING_JOB_TTL } from '../../store.ts'
import { FLAGS } from '../wire.ts'
import { GENERATION_FIELDS } from './prelude.ts'

/**
 * Creates jobs: what the scripts that submit share.
 *
 * ARGV    1 inbox  2 broadcast channel  3 message that requests capacity  4 how many may be parked on a record; for each
 *         command its name and how many of the jobs are for it. jobArgs: how many ARGV come before the next
 *
 *   optionsOf(text)     the terms of a submission: `<command> <flags> <delay> <priority>`
 *   create(n, key, id, command, previous, options, nonce, payload, jobOptions)
 *                       creates a generation. n: its position among those of this script, below 1000. previous: generation,
 *                       fence and listedIn of the record, if it exists. Returns the generation
 *   endSubmissions()    removes the used slots from the lists, and sends all messages
 */
export const CREATE: string = /* lua */ `
local inbox, broadcastChannel, capacityRequest, maxParked =
  ARGV[argBase + 1], ARGV[argBase + 2], ARGV[argBase + 3], num(ARGV[argBase + 4])
for n, command in ipairs(commands) do
  command.name, command.count = ARGV[argBase + 3 + 2 * n], num(ARGV[argBase + 4 + 2 * n])
end
local jobArgs = argBase + 4 + 2 * #commands
clock()
local firstGeneration = int(us)

-- The next free slot for a job, if there is one.
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

local function endSubmissions()
  for _, command in ipairs(commands) do
    if command.used and command.used > 0 then redis.call('LTRIM', command.slotsKey, command.used, -1) end
    if command.hasFirstReady and redis.call('EXISTS', command.workersKey) == 0 then
      redis.pcall('PUBLISH', broadcastChannel, capacityRequest)
    end
  end
  writeTotals()
  sendOutbox()
  sendBatches()
end
`
