import { ERASURES } from './prelude.ts'

/**
 * Submits the jobs of a post, all or none. A script is not rolled back. So it reads all keys whose type could be wrong before its
 * first write. A Redis that is out of memory, or accepts no writes, refuses this first write; it allows the later ones of the script.
 *
 * KEYS    at the end the record of the post; one record for each job
 * ARGV    those of create.ts; then 1 digest  2 nonce  3 ms for which the post is known; then for each job:
 *         1 `<command> <flags> <delay> <priority>`  2 payload  3 options
 * returns 'C generation nonce' created, 'J generation nonce' the post is known, 'X' another post is known under the key,
 *         'U command' unknown command, by its number
 */
export const SUBMIT_ALL: string = /* lua */ `
local postKey, digest, nonce, knownFor = KEYS[keyBase + 1], ARGV[jobArgs + 1], ARGV[jobArgs + 2], num(ARGV[jobArgs + 3])
local count = #KEYS - keyBase - 1
local function jobKeyAt(n) return KEYS[keyBase + 1 + n] end
local function argOf(n, field) return ARGV[jobArgs + 3 * n + field] end

local erasures = redis.pcall('HGET', totalsKey, '${ERASURES}')
erasures = type(erasures) == 'string' and erasures or '0'
local knownDigest, knownNonce, generation, madeAfter = unpack(redis.call('HMGET', postKey, 'h', 'c', 'y', 'x'))
if generation and madeAfter == erasures then
  if knownDigest ~= digest then return 'X' end
  return (knownNonce == nonce and 'C ' or 'J ') .. generation .. ' ' .. knownNonce
end
-- The record of the post is gone, and this is a repetition all the same.
if count > 0 and redis.call('EXISTS', unpack(KEYS, keyBase + 2)) > 0 then
  for n = 1, count do
    local made = redis.call('HGET', jobKeyAt(n), 'y')
    if made then return 'C ' .. made .. ' ' .. nonce end
  end
end

local jobs = {}
for n = 1, count do
  local options = optionsOf(argOf(n, 1))
  if options.requiresWorker and redis.call('EXISTS', options.command.workersKey) == 0 then
    return 'U ' .. string.match(argOf(n, 1), '^%d+')
  end
  jobs[n] = { options = options, payload = argOf(n, 2), jobOptions = argOf(n, 3) }
end
-- An error if one of them is of another type.
for _, read in ipairs({ { 'ZCARD', deadlinesKey }, { 'ZCARD', delayedKey }, { 'HLEN', commandsKey } }) do redis.call(unpack(read)) end
for _, command in ipairs(commands) do
  redis.call('LLEN', command.readyKey)
  redis.call('ZCARD', command.rankedKey)
  redis.call('LLEN', command.slotsKey)
  redis.call('HLEN', command.workersKey)
end
nextNumber(nonce, nil, us)

redis.call('HSET', postKey, 'h', digest, 'c', nonce, 'y', firstGeneration, 'x', erasures)
expire(postKey, knownFor)
for n, job in ipairs(jobs) do
  local key = jobKeyAt(n)
  create(n - 1, key, idOf(key), job.options.command, {}, job.options, nonce, job.payload, job.jobOptions)
end
endSubmissions()
return 'C ' .. firstGeneration .. ' ' .. nonce
`
