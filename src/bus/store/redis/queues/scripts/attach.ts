import { KEYS_PER_QUEUE, NEVER, ROLE } from './prelude.ts'
import { SIGNALS } from './signals.ts'

/**
 * KEYS    the queue's; the reservation of its name
 * ARGV    3 address  4 ttl  5 maxsize  6 life  7 token  8 life that it was attached to  9 '1' if it watches the holder
 * returns `life ttl maxsize existed`; C: closed; U: unreserved
 */
export const ATTACH: string = /* lua */ `
local address, newLife, token, attachedTo, watches = ARGV[3], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
if attachedTo ~= '' then
  local forgottenAt, closed = string.match(redis.call('GET', closedKey) or '', '^(%d+) (%S+)')
  if closed == attachedTo and num(forgottenAt) > now then return 'C' end
end
if not openQueue(address) then
  if token ~= '' and redis.call('GET', KEYS[${KEYS_PER_QUEUE + 1}]) ~= token then return 'U' end
  ttl, maxsize, due = num(ARGV[4]), num(ARGV[5]), ${NEVER}
  expiresAt = now + ttl
  redis.call('HSET', queueKey, 'e', int(expiresAt), 'd', int(due), 'm', int(maxsize), 'l', 0, 'c', 1, 'h', '', 'i', newLife, 't', int(ttl), 'f', 0)
  keep(queueKey)
end
local life = extend()
redis.call('HSET', queueKey, 'a' .. address, watches .. string.sub(attachment or '0 0 0 0', 2))
holdLease(address)
return life .. ' ' .. int(ttl) .. ' ' .. int(maxsize) .. ' ' .. (life == newLife and '0' or '1')
`

/**
 * The life of a queue.
 *
 *   ttl                  known after `extend`
 *   extend()             the queue lives for its ttl from now; returns the id of its life
 *   holdLease(address)   begins or extends the lease of an attachment
 */
export const EXTEND: string = /* lua */ `
local ttl
local function extend()
  local terms = redis.call('HMGET', queueKey, 'i', 't')
  ttl = num(terms[2])
  expiresAt = now + ttl
  redis.call('HSET', queueKey, 'e', int(expiresAt))
  for _, key in ipairs({ queueKey, streamKey, leasesKey, idsKey, turnsKey, waitingKey, metadataKey }) do keep(key) end
  return terms[1]
end
local function holdLease(address)
  redis.call('ZADD', leasesKey, int(now + ttl), 'a' .. address)
  keep(leasesKey)
  limit(now + ttl)
end
`

/** ARGV    3 address */
export const DETACH: string = /* lua */ `
local address = ARGV[3]
openQueue(address)
if not attachment then return 0 end
if string.find(attachment, '/', 1, true) then lose(address) end
forget(address)
extend()
return 1
`

/**
 * Renews attachments of one process. One that fails does not hinder the others.
 *
 * KEYS    those of each queue
 * ARGV    3… the address in each queue
 * returns for each: C: it consumes; A: it is attached; D: it is not; E and an error
 */
export const RENEW: string = /* lua */ `
local function choose(n)
  queueKey, streamKey, leasesKey, idsKey, turnsKey, waitingKey, metadataKey, closedKey =
    unpack(KEYS, ${KEYS_PER_QUEUE} * (n - 1) + 1, ${KEYS_PER_QUEUE} * n)
end
local function renew(address)
  openQueue(address)
  if not attachment then return 'D' end
  extend()
  holdLease(address)
  local lease = string.match(attachment, '/(%d+)')
  if lease then
    redis.call('ZADD', leasesKey, int(${ROLE} + now + num(lease)), 'c' .. address)
    limit(now + num(lease))
  end
  -- Whoever was told of the messages may have died.
  if cursor <= last or idsOf('r', 1)[1] then
    ${SIGNALS}
    wakeConsumers(1)
  end
  return lease and 'C' or 'A'
end
local replies = {}
for n = 1, #ARGV - 2 do
  choose(n)
  local isDone, reply = pcall(renew, ARGV[n + 2])
  replies[n] = isDone and reply or 'E' .. (type(reply) == 'table' and reply.err or reply)
end
return replies
`
