import { ID_LENGTH } from '../../../../kernel/keys.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/server-clock.ts'
import { MAX_DELAY, PENDING_JOB_TTL } from '../../store.ts'
import { WORKER_TTL } from './prelude.ts'

/** Jobs that are handed out in one go. */
const BATCH_SIZE = 16
/** Rounds of one script, and bytes of payload that it hands out: the rest is asked for by the workers. */
const MAX_ROUNDS = 64
const MAX_PAYLOAD_BYTES = 1024 * 1024

/** A longer payload, in bytes, is read by its worker: one who is told too much at once loses its subscription. */
const MAX_INLINE_PAYLOAD = 16 * 1024

/** For how long what has a time is kept: longer than anything in it. */
export const DEADLINE_TTL: number = MAX_DELAY + PENDING_JOB_TTL

/**
 * Puts jobs in line, and hands them to idle workers.
 *
 * Nothing waits while a place is free, except what is paused or put off: so who adds a job looks for a place only, and
 * who frees a place looks for a job only if no place was free before.
 */
export const DISPATCH: string = `
local function push(command, id, rank, lifo)
  if rank then
    local priority, order = string.match(rank, '^(%d+) (%d+)$')
    redis.call('ZADD', command.z, '-' .. priority, order .. id)
    extend(command.z, ${PENDING_JOB_TTL})
    return redis.call('LPUSH', command.w, '!')
  end
  if not lifo then return redis.call('RPUSH', command.w, id) end
  local ranked = redis.call('ZCARD', command.z)
  -- What came back from a worker may stand before the last of those with a priority.
  local last = ranked > 0 and redis.call('LPOS', command.w, '!', 'RANK', ranked)
  local pivot = last and redis.call('LINDEX', command.w, last + 1)
  if pivot then return redis.call('LINSERT', command.w, 'BEFORE', pivot, id) end
  if ranked > 0 then return redis.call('RPUSH', command.w, id) end
  return redis.call('LPUSH', command.w, id)
end

local function line(command, id, rank, lifo)
  local length = push(command, id, rank, lifo)
  extend(command.w, ${PENDING_JOB_TTL})
  if length > 1 then return end
  -- Where nothing waited, the command may be unknown by now.
  redis.call('HSET', Q, command.name, command.real or redis.call('HGET', base .. 'j/' .. id, 'm') or command.name)
  keepFor(Q, ${PENDING_JOB_TTL})
  command.began = true
end

-- Puts a job before all others.
local function putFirst(command, id)
  redis.call('LPUSH', command.w, id)
  extend(command.w, ${PENDING_JOB_TTL})
end

-- Puts a job off.
local function postpone(key, name, delay)
  clock()
  redis.call('HSET', key, 'd', int(now + delay))
  for _, times in ipairs({ T, D }) do
    redis.call('ZADD', times, int(now + delay), name)
    keepFor(times, ${DEADLINE_TTL})
  end
end

-- The jobs at the front of a line (false: one that is not there any more), and those of them that have a priority.
local function front(command, count)
  local ids, ranked, at = redis.call('LRANGE', command.w, 0, count - 1), 0, 0
  for _, id in ipairs(ids) do
    if id == '!' then ranked = ranked + 1 end
  end
  local first = ranked > 0 and redis.call('ZRANGE', command.z, 0, ranked - 1) or {}
  for n, id in ipairs(ids) do
    if id == '!' then
      at = at + 1
      ids[n] = first[at] and string.sub(first[at], 20) or false
    end
  end
  return ids, first
end
local function takeFront(command, count, first)
  redis.call('LTRIM', command.w, count, -1)
  if #first > 0 then redis.call('ZREM', command.z, unpack(first)) end
end

local parcels, workers, leases = {}, {}, {}
local function lease()
  if #leases == 0 then return end
  redis.call('ZADD', T, unpack(leases))
  keepFor(T, ${DEADLINE_TTL})
  leases = {}
end
-- The worker of a place that a script has left, though there was a job for it; and bytes handed out so far.
local unserved, handed = nil, 0
-- Of all that one script hands out, the same.
local granted, grantedAt, leaseEnd
-- The fence of the next attempt of a job; last: that of the attempt before.
local function fenceAfter(last)
  if not granted then
    clock()
    grantedAt = math.max(us, seen + 1)
    granted, leaseEnd = int(grantedAt), int(now + accept)
  end
  if last and num(last) >= grantedAt then return int(num(last) + 1) end
  return granted
end
-- Begins an attempt. job: a, z, b, y as in the record, and its payload.
local function hand(command, id, worker, job, fence)
  local parcel = parcels[worker]
  if not parcel then
    parcel = { command = command }
    parcels[worker] = parcel
    workers[#workers + 1] = worker
  end
  local options, until_ = job.b or '', leaseEnd
  -- A job that lost its worker before has to be accepted before it may start.
  if job.z and job.z ~= '0' then until_ = '0' end
  local payload, long = job.payload, ''
  if #payload > ${MAX_INLINE_PAYLOAD} then payload, long = '', ' +' end
  handed = handed + #payload
  parcel[#parcel + 1] = { id = id, message = string.sub(worker, ${ID_LENGTH + 1}) .. 'j ' .. id .. ' ' .. fence .. ' ' .. job.y .. ' ' ..
    (job.a or '0') .. ' ' .. (job.z or '0') .. ' ' .. until_ .. ' ' .. #options .. long .. '\\n' .. options .. payload }
  leases[#leases + 1] = leaseEnd
  leases[#leases + 1] = member(id, command)
end

local function dispatch(command)
  for round = 1, ${MAX_ROUNDS + 1} do
    local places = redis.call('LRANGE', command.i, 0, ${BATCH_SIZE - 1})
    if #places == 0 or places[1] == 'P' then return end
    local found, first = front(command, #places)
    if #found == 0 then return end
    if round > ${MAX_ROUNDS} or handed > ${MAX_PAYLOAD_BYTES} then
      unserved = places[1]
      return
    end
    clock()
    local jobs = {}
    for n, id in ipairs(found) do
      local key = id and base .. 'j/' .. id
      local r = id and redis.pcall('HMGET', key, 'f', 'a', 'z', 'b', 'y', 'p', 'o', 'Y', 'd') or { err = '' }
      -- Not what waits: its record was replaced by hand.
      if not r.err and r[5] and ((r[7] and r[7] ~= '') or num(r[8]) >= num(r[5]) or r[9]) then id = nil end
      local job = { id = id, key = key }
      if id and not r.err and r[5] and num(r[1]) < ${MAX_EXACT_INTEGER} then
        local read, payload = pcall(payloadOf, key, r[6])
        if read then
          job.f, job.a, job.z, job.b, job.y, job.payload = r[1], r[2], r[3], r[4], r[5], payload
        end
      end
      jobs[n] = job
    end
    takeFront(command, #found, first)
    local used = 0
    for _, job in ipairs(jobs) do
      if job.payload then
        used = used + 1
        local fence = fenceAfter(job.f)
        redis.call('HSET', job.key, 'o', places[used], 'f', fence)
        hand(command, job.id, places[used], job, fence)
      elseif job.id then
        leases[#leases + 1] = int(now + accept)
        leases[#leases + 1] = member(job.id, command)
      end
    end
    if used > 0 then redis.call('LTRIM', command.i, used, -1) end
    lease()
    if #found < #places then return end
  end
end

-- Sends what was handed out. What goes to a worker that is not there any more goes to another.
local function deliver()
  for _ = 1, ${MAX_ROUNDS} do
    lease()
    local sent, given = workers, parcels
    workers, parcels = {}, {}
    local left = {}
    for _, worker in ipairs(sent) do
      local parcel, messages = given[worker], {}
      for n, one in ipairs(parcel) do messages[n] = one.message end
      if send(string.sub(worker, 1, ${ID_LENGTH}), messages) == 0 and not cluster then
        for n = #parcel, 1, -1 do
          redis.call('HDEL', base .. 'j/' .. parcel[n].id, 'o')
          redis.call('ZREM', T, member(parcel[n].id, parcel.command))
          putFirst(parcel.command, parcel[n].id)
        end
        redis.call('LREM', parcel.command.i, 0, worker)
        redis.call('HDEL', parcel.command.r, worker)
        left[#left + 1] = parcel.command
      end
    end
    for _, command in ipairs(left) do dispatch(command) end
    if #left == 0 then break end
  end
  -- Behind what was delivered to it: it says again what it can take, when it has seen to that.
  if unserved then send(string.sub(unserved, 1, ${ID_LENGTH}), { string.sub(unserved, ${ID_LENGTH + 1}) .. 's' }) end
end

-- Places that are free again. Only if none was free before can a job be waiting for one.
local function free(command, places)
  local count, length = #places, 0
  for from = 1, count, 1000 do
    length = redis.call('RPUSH', command.i, unpack(places, from, math.min(from + 999, count)))
  end
  if length > count then return end
  keepFor(command.i, ${WORKER_TTL})
  if redis.call('LLEN', command.w) > 0 then dispatch(command) end
end
`
