import { CLOSED_TTL } from '../../../queue-record.ts'
import { MAX_METADATA } from '../../../store.ts'
import { CHUNK, ROLE, WAITING_COUNT } from './prelude.ts'
import { SIGNALS } from './signals.ts'

/** returns `count ttlLeft maxsize`, and of the exclusive consumer `fence leaseLeft`; N: there is no queue */
export const INSPECT: string = /* lua */ `
if not openQueue() then return 'N' end
local reply = int(${WAITING_COUNT}) .. ' ' .. int(expiresAt - now) .. ' ' .. int(maxsize)
local leaseEnd = holder ~= '' and redis.call('ZSCORE', leasesKey, 'c' .. holder)
if not leaseEnd then return reply end
return reply .. ' ' .. redis.call('HGET', queueKey, 'f') .. ' ' .. int(math.max(0, num(leaseEnd) - ${ROLE} - now))
`

/** returns the number of messages */
export const FLUSH: string = /* lua */ `
if not openQueue() then return 0 end
local count = redis.call('XLEN', streamKey)
redis.call('UNLINK', streamKey, idsKey, turnsKey)
cursor = last + 1
redis.call('HSET', queueKey, 'c', int(cursor))
-- Consumers hold nothing any more.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', leasesKey, ${ROLE}, '+inf')) do
  local field = 'a' .. string.sub(member, 2)
  local text = redis.call('HGET', queueKey, field)
  if text then redis.call('HSET', queueKey, field, string.match(text, '^[^/]*/%d+ %d+') or text) end
end
${SIGNALS}
tellRoom()
return count
`

/**
 * ARGV    3 address
 * returns 0 if it is not attached, unless it has closed the queue before
 */
export const REMOVE: string = /* lua */ `
local address = ARGV[3]
openQueue(address)
if not attachment then
  -- The reply to it may have been lost.
  local forgottenAt, by = string.match(redis.call('GET', closedKey) or '', '^(%d+) %S+ (.*)$')
  return by == address and num(forgottenAt) > now and 1 or 0
end
${SIGNALS}
local life, others = redis.call('HGET', queueKey, 'i'), {}
for _, other in ipairs(addresses()) do
  if other ~= address then others[#others + 1] = other end
end
redis.call('SET', closedKey, int(now + ${CLOSED_TTL}) .. ' ' .. life .. ' ' .. address, 'PX', ${CLOSED_TTL})
redis.call('UNLINK', queueKey, streamKey, leasesKey, idsKey, turnsKey, waitingKey, metadataKey)
sendAll(others, 'c')
return 1
`

/**
 * ARGV    3… names; none: all
 * returns names and bytes, in turn
 */
export const READ_METADATA: string = /* lua */ `
if not openQueue() then return {} end
if #ARGV == 2 then return redis.call('HGETALL', metadataKey) end
local found = {}
for n = 3, #ARGV do
  local bytes = redis.call('HGET', metadataKey, ARGV[n])
  if bytes then
    found[#found + 1] = ARGV[n]
    found[#found + 1] = bytes
  end
end
return found
`

/**
 * ARGV    3… names and bytes, in turn
 * returns 1; 0: there would be too many; N: there is no queue
 */
export const WRITE_METADATA: string = /* lua */ `
if not openQueue() then return 'N' end
local count = redis.call('HLEN', metadataKey)
for n = 3, #ARGV, 2 do
  if redis.call('HEXISTS', metadataKey, ARGV[n]) == 0 then count = count + 1 end
end
if count > ${MAX_METADATA} then return 0 end
for from = 3, #ARGV, ${2 * CHUNK} do
  redis.call('HSET', metadataKey, unpack(ARGV, from, math.min(#ARGV, from + ${2 * CHUNK - 1})))
  keep(metadataKey)
end
return 1
`
