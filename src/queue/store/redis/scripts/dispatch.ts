import { ID_LENGTH } from '../../../../kernel/keys.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/server.ts'
import { MAX_DELAY, PENDING_JOB_TTL } from '../../store.ts'
import { WORKER_TTL } from './prelude.ts'

/** Jobs that are read and assigned together. */
export const BATCH_SIZE = 16
/** Batches that one script assigns at most. Then a worker sets its capacity again, which assigns the rest. */
export const MAX_BATCHES = 64
/** Bytes of payload that one script assigns, about. */
export const MAX_ASSIGNED_BYTES: number = 1024 * 1024

/** A longer payload, in bytes, is read by its worker: a process that is sent too much at once loses its subscription. */
export const MAX_INLINE_PAYLOAD: number = 16 * 1024

/** How long t and d are kept, ms: longer than anything in them. */
export const DEADLINE_TTL: number = MAX_DELAY + PENDING_JOB_TTL

/**
 * Makes jobs ready and assigns them to free slots.
 *
 * After each script a command has no ready job or no free slot, unless it is paused or a job could not be read. So a
 * script that adds a job looks for a slot only, and one that frees a slot looks for a job only if no slot was free before.
 *
 *   pushReady(command, id, rank, lifo)       makes a job ready; registers its command if the list was empty
 *   requeueFirst(command, id)                makes a job ready before all others
 *   delayJob(key, member, delay)             delays a job, ms
 *   delayNew(key, id, command, delay)        delays a generation that begins, and notifies a worker
 *   peekReady(command, count)                the first ready ids (false: the marker of a job that does not exist), and the
 *                                            members of z among them
 *   dropReady(command, count, ranked)        removes what peekReady returned
 *   shiftReady(command, count)               removes the first ready jobs; returns those that can be read, and how many it removed
 *   fenceAfter(lastFence)                    the fence of the next attempt of a job
 *   assign(command, id, worker, job, fence)  begins an attempt. job: payload, options, generation, failures, stalls
 *   assignReady(command)                     assigns ready jobs to free slots
 *   releaseSlots(command, workers)           adds free slots, then assigns ready jobs if no slot was free before
 *   sendBatches()                            sends the attempts; those of a process that is gone are assigned to others
 */
export const DISPATCH: string = /* lua */ `
local function insertReady(command, id, rank, lifo)
  if rank then
    local priority, order = string.match(rank, '^(%d+) (%d+)$')
    redis.call('ZADD', command.rankedKey, '-' .. priority, order .. id)
    extend(command.rankedKey, ${PENDING_JOB_TTL})
    return redis.call('LPUSH', command.readyKey, PRIORITY_MARKER)
  end
  if not lifo then return redis.call('RPUSH', command.readyKey, id) end
  local rankedCount = redis.call('ZCARD', command.rankedKey)
  -- Requeued jobs may come before the last marker, so its position is searched for.
  local last = rankedCount > 0 and redis.call('LPOS', command.readyKey, PRIORITY_MARKER, 'RANK', rankedCount)
  local pivot = last and redis.call('LINDEX', command.readyKey, last + 1)
  if pivot then return redis.call('LINSERT', command.readyKey, 'BEFORE', pivot, id) end
  if rankedCount > 0 then return redis.call('RPUSH', command.readyKey, id) end
  return redis.call('LPUSH', command.readyKey, id)
end

local function pushReady(command, id, rank, lifo)
  local length = insertReady(command, id, rank, lifo)
  extend(command.readyKey, ${PENDING_JOB_TTL})
  if length > 1 then return end
  registerCommand(command, command.name or redis.call('HGET', jobKey(id), 'm') or command.segment)
  command.hasFirstReady = true
end

local function requeueFirst(command, id)
  redis.call('LPUSH', command.readyKey, id)
  extend(command.readyKey, ${PENDING_JOB_TTL})
end

local function delayJob(key, member, delay)
  clock()
  redis.call('HSET', key, 'd', int(now + delay))
  for _, times in ipairs({ deadlinesKey, delayedKey }) do
    redis.call('ZADD', times, int(now + delay), member)
    expire(times, ${DEADLINE_TTL})
  end
end

local function delayNew(key, id, command, delay)
  delayJob(key, dueMember(id, command), delay)
  -- One worker is notified, so that a process has a timer for it.
  local notified = redis.call('HRANDFIELD', command.workersKey)
  if notified then publish(notified, 't ' .. int(delay)) end
end

local function peekReady(command, count)
  local ids, markers, at = redis.call('LRANGE', command.readyKey, 0, count - 1), 0, 0
  for _, id in ipairs(ids) do
    if id == PRIORITY_MARKER then markers = markers + 1 end
  end
  local ranked = markers > 0 and redis.call('ZRANGE', command.rankedKey, 0, markers - 1) or {}
  for n, id in ipairs(ids) do
    if id == PRIORITY_MARKER then
      at = at + 1
      ids[n] = ranked[at] and string.sub(ranked[at], 20) or false
    end
  end
  return ids, ranked
end
local function dropReady(command, count, ranked)
  redis.call('LTRIM', command.readyKey, count, -1)
  if #ranked > 0 then redis.call('ZREM', command.rankedKey, unpack(ranked)) end
end

-- The attempts by worker, the workers in order, and the leases (time, member, …) that are not written yet.
local batches, batchWorkers, leases = {}, {}, {}
local function writeLeases()
  if #leases == 0 then return end
  redis.call('ZADD', deadlinesKey, unpack(leases))
  expire(deadlinesKey, ${DEADLINE_TTL})
  leases = {}
end
-- A worker with a free slot, when the script stops though jobs are ready; and the bytes assigned so far.
local saturatedWorker, assignedBytes = nil, 0
-- All attempts of one script have the same lease, and the same fence unless the record has seen a higher one.
local fence, fenceText, leaseEnd
local function fenceAfter(lastFence)
  if not fence then
    clock()
    fence = math.max(us, highestFence + 1)
    fenceText, leaseEnd = int(fence), int(now + acceptWithin)
  end
  if lastFence and num(lastFence) >= fence then return int(num(lastFence) + 1) end
  return fenceText
end
local function assign(command, id, worker, job, fence)
  local batch = batches[worker]
  if not batch then
    batch = { command = command }
    batches[worker] = batch
    batchWorkers[#batchWorkers + 1] = worker
  end
  local options, leaseUntil = job.options or '', leaseEnd
  -- A job that stalled before must be accepted before it starts.
  if job.stalls and job.stalls ~= '0' then leaseUntil = '0' end
  local payload, isTruncated = job.payload, ''
  if #payload > ${MAX_INLINE_PAYLOAD} then payload, isTruncated = '', ' +' end
  assignedBytes = assignedBytes + #payload
  batch[#batch + 1] = { id = id, payload = payload, head = string.sub(worker, ${ID_LENGTH + 1}) .. 'j ' .. id .. ' ' .. fence .. ' ' .. job.generation .. ' ' ..
    (job.failures or '0') .. ' ' .. (job.stalls or '0') .. ' ' .. leaseUntil .. ' ' .. #options .. isTruncated .. '\\n' .. options }
  leases[#leases + 1] = leaseEnd
  leases[#leases + 1] = dueMember(id, command)
end

-- The record of a job in w; nil when it does not belong there, since somebody has written it by hand. Without a payload: it
-- cannot be read, or its numbers are not exact.
local function readReady(id)
  local key = id and jobKey(id)
  local found = id and redis.pcall('HMGET', key, 'f', 'a', 'z', 'b', 'y', 'p', 'o', 'Y', 'd') or { err = '' }
  local job = { id = id, key = key }
  if found.err then return job end
  local lastFence, failures, stalls, options, generation, firstPiece, worker, settledGeneration, dueAt = unpack(found)
  if not generation then return job end
  if (worker and worker ~= '') or num(settledGeneration) >= num(generation) or dueAt then return {} end
  if not (num(lastFence) < ${MAX_EXACT_INTEGER}) then return job end
  local isRead, payload = pcall(payloadOf, key, firstPiece)
  if isRead then
    job.lastFence, job.failures, job.stalls, job.options, job.generation = lastFence, failures, stalls, options, generation
    job.payload = payload
  end
  return job
end

local function shiftReady(command, count)
  local ids, ranked = peekReady(command, count)
  local jobs, readable = {}, {}
  if #ids == 0 then return readable, 0 end
  clock()
  for n, id in ipairs(ids) do jobs[n] = readReady(id) end
  dropReady(command, #ids, ranked)
  for _, job in ipairs(jobs) do
    if job.payload then
      readable[#readable + 1] = job
    elseif job.id then
      leases[#leases + 1] = int(now + acceptWithin)
      leases[#leases + 1] = dueMember(job.id, command)
    end
  end
  return readable, #ids
end

local function assignReady(command)
  for round = 1, ${MAX_BATCHES + 1} do
    local slots = redis.call('LRANGE', command.slotsKey, 0, ${BATCH_SIZE - 1})
    if #slots == 0 or slots[1] == PAUSED_MARKER then return end
    if round > ${MAX_BATCHES} or assignedBytes > ${MAX_ASSIGNED_BYTES} then
      if redis.call('LLEN', command.readyKey) > 0 then saturatedWorker = slots[1] end
      return
    end
    local jobs, removed = shiftReady(command, #slots)
    for n, job in ipairs(jobs) do
      local fence = fenceAfter(job.lastFence)
      redis.call('HSET', job.key, 'o', slots[n], 'f', fence)
      assign(command, job.id, slots[n], job, fence)
    end
    if #jobs > 0 then redis.call('LTRIM', command.slotsKey, #jobs, -1) end
    writeLeases()
    if removed < #slots then return end
  end
end

local function sendBatches()
  for _ = 1, ${MAX_BATCHES} do
    writeLeases()
    local sentWorkers, sent = batchWorkers, batches
    batchWorkers, batches = {}, {}
    local requeued = {}
    for _, worker in ipairs(sentWorkers) do
      local batch, messages = sent[worker], {}
      for n, attempt in ipairs(batch) do messages[2 * n - 1], messages[2 * n] = attempt.head, attempt.payload end
      if sendTo(string.sub(worker, 1, ${ID_LENGTH}), messages) == 0 and not isCluster then
        for n = #batch, 1, -1 do
          redis.call('HDEL', jobKey(batch[n].id), 'o')
          redis.call('ZREM', deadlinesKey, dueMember(batch[n].id, batch.command))
          requeueFirst(batch.command, batch[n].id)
        end
        redis.call('LREM', batch.command.slotsKey, 0, worker)
        redis.call('HDEL', batch.command.workersKey, worker)
        requeued[#requeued + 1] = batch.command
      end
    end
    for _, command in ipairs(requeued) do assignReady(command) end
    if #requeued == 0 then break end
  end
  -- Sent after its deliveries: the worker sets its capacity again when it has seen them.
  if saturatedWorker then sendTo(string.sub(saturatedWorker, 1, ${ID_LENGTH}), { string.sub(saturatedWorker, ${ID_LENGTH + 1}), 's' }) end
end

local function releaseSlots(command, workers)
  local count, length = #workers, 0
  for from = 1, count, 1000 do
    length = redis.call('RPUSH', command.slotsKey, unpack(workers, from, math.min(from + 999, count)))
  end
  if length > count then return end
  expire(command.slotsKey, ${WORKER_TTL})
  if redis.call('LLEN', command.readyKey) > 0 then assignReady(command) end
end
`
