import { ID_LENGTH } from '../../../../kernel/keys.ts'

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
 *         5 '1' only if no waiter is left and the submissions allow it  6 message limit
 * returns 1, or 0 when there was nothing to do
 */
export const TERMINATE: string = /* lua */ `
local key, command = KEYS[keyBase + 1], commands[1]
local id, leaving, kind, outcomeRetention = idOf(key), ARGV[argBase + 1], ARGV[argBase + 2], num(ARGV[argBase + 4])
local generation, settledGeneration, worker, lastFence, dueAt, creatorPark, parkedCount, nextGeneration, rank, abortUnwanted,
  parkedGeneration, outcomeKind =
  unpack(redis.call('HMGET', key, 'y', 'Y', 'o', 'f', 'd', 'w', 'n', 'N', 'r', 'u', '@' .. leaving, 'k'))
if not generation then return 0 end
local job = { key = key, generation = generation, fence = lastFence, creatorPark = creatorPark, parkedCount = num(parkedCount),
  nextGeneration = nextGeneration }
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
if ARGV[argBase + 5] == '1' and (not abortUnwanted or hasWaiters) then return 0 end
if num(settledGeneration) >= num(generation) then
  if kind ~= 'x' or outcomeKind == 'x' then return 0 end
  redis.call('ZREM', failedKey, id)
  redis.call('ZREM', completedKey, id)
  redis.call('HDEL', key, 'v', 'e', 'L')
  redis.call('HSET', key, 'k', 'x', 'vu', '0', 'eu', '0')
  expire(key, outcomeRetention)
  return 1
end
local member, isActive = dueMember(id, command), worker and worker ~= ''
redis.call('ZREM', deadlinesKey, member)
if dueAt then redis.call('ZREM', delayedKey, member) end
if not isActive then
  redis.call('LREM', command.readyKey, 1, id)
  if rank and redis.call('ZREM', command.rankedKey, string.match(rank, ' (.*)$') .. id) == 1 then
    redis.call('LREM', command.readyKey, 1, PRIORITY_MARKER)
  end
end
terminateJob(job, kind, ARGV[argBase + 3], outcomeRetention, num(ARGV[argBase + 6]))
if isActive then publish(worker, 'c ' .. id .. ' ' .. int(num(lastFence))) end
sendOutbox()
return 1
`
