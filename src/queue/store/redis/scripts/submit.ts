/**
 * Submits jobs, each by itself.
 *
 * KEYS    at the end one record each
 * ARGV    those of create.ts; then for each job: 1 `<command> <flags> <delay> <priority>`  2 nonce  3 payload  4 options
 * returns for each job 'C generation' created, 'J generation' joined, 'X' conflict, 'U' unknown command, 'O' overloaded,
 *         '!reason' failed, or a pair: 'V fence generation' or 'E fence generation' cached, and the bytes
 */
export const SUBMIT: string = /* lua */ `
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
endSubmissions()
return replies
`
