import { MAX_STRUCK } from '../../../queue-record.ts'
import { CHUNK, NEVER, RANGES, ROLE } from './prelude.ts'
import { SIGNALS } from './signals.ts'

/** Lua: `removeAll(ids)` removes messages; ids are digits. If it was the turn of one, the next of its key waits again. */
export const REMOVAL: string = /* lua */ `
local function removeAll(ids)
  for from = 1, #ids, ${CHUNK} do
    local to = math.min(#ids, from + ${CHUNK - 1})
    redis.call('XDEL', streamKey, unpack(ids, from, to))
    -- Mostly, there are neither keys nor redeliveries.
    local marks = redis.call('EXISTS', turnsKey) == 1 and redis.call('HMGET', turnsKey, unpack(ids, from, to))
    for n = from, marks and to or 0 do
      local mark = marks[n - from + 1]
      if mark and redis.call('HDEL', turnsKey, ids[n]) == 1 then
        local key = string.match(mark, '^%d+ (.*)$')
        if key then
          local prefix = 'b' .. #key .. ':' .. key
          local member = idsOf(prefix, 1)[1]
          if member then
            local id = string.sub(member, #prefix + 2)
            local redelivered = redis.call('HGET', turnsKey, id) or '0'
            redis.call('HSET', turnsKey, 'k' .. key, id, id, redelivered .. ' ' .. key)
            keep(turnsKey)
            redis.call('ZADD', idsKey, 0, 'r' .. string.sub(member, #prefix + 1))
            redis.call('ZREM', idsKey, member)
          else
            redis.call('HDEL', turnsKey, 'k' .. key)
          end
        end
      end
    end
  end
end
`

/**
 * What ends consumption and attachments. After SIGNALS and REMOVAL.
 *
 *   leave(address, held, returns, unhanded)   ends the consumption of an address: returns what it holds, or removes it.
 *                                             `unhanded`: a set of ids that count as never given
 *   lose(address)                             the same, if the address has not left by itself
 *   forget(address)                           removes an attachment
 */
export const LEAVING: string = /* lua */ `
${RANGES}
local function returnAll(ids, unhanded)
  for from = 1, #ids, ${CHUNK} do
    local to = math.min(#ids, from + ${CHUNK - 1})
    local marks, changed, returned = redis.call('HMGET', turnsKey, unpack(ids, from, to)), {}, {}
    for n = from, to do
      local id = ids[n]
      returned[#returned + 1], returned[#returned + 2] = 0, 'r' .. sortable(id)
      if not unhanded[id] then
        local redelivered, key = string.match(marks[n - from + 1] or '', '^(%d*)(.*)$')
        changed[#changed + 1], changed[#changed + 2] = id, int(num(redelivered) + 1) .. key
      end
    end
    if #changed > 0 then
      redis.call('HSET', turnsKey, unpack(changed))
      keep(turnsKey)
    end
    redis.call('ZADD', idsKey, unpack(returned))
    keep(idsKey)
  end
end
local function leave(address, held, returns, unhanded)
  if returns then returnAll(expand(held), unhanded) else removeAll(expand(held)) end
  local text = redis.call('HGET', queueKey, 'a' .. address)
  if text then redis.call('HSET', queueKey, 'a' .. address, string.match(text, '^[^/]*')) end
  redis.call('ZREM', leasesKey, 'c' .. address)
  redis.call('ZREM', waitingKey, 'c' .. address)
  local available = redis.call('ZLEXCOUNT', idsKey, '[r', '(r~') + last + 1 - cursor
  if holder == address then
    redis.call('HSET', queueKey, 'h', '')
    holder, available = '', math.max(1, available)
    announceHolder()
  end
  wakeConsumers(available)
end
local function lose(address)
  local text = redis.call('HGET', queueKey, 'a' .. address) or ''
  leave(address, rangesOf(text), string.find(text, '/%d+ 1'), {})
end
local function forget(address)
  redis.call('HDEL', queueKey, 'a' .. address)
  redis.call('ZREM', leasesKey, 'a' .. address)
  redis.call('ZREM', waitingKey, 'c' .. address, 'r' .. address, 'p' .. address)
end
`

/**
 * What each script begins with.
 *
 *   limit(leaseEnd)      a lease ends then
 *   openQueue(address)   loads the queue, and removes those whose leases are over; returns whether there is a queue.
 *                        `attachment` is nil or false unless the address is attached
 */
export const OPEN: string = /* lua */ `
local function limit(leaseEnd)
  if leaseEnd >= due then return end
  due = leaseEnd
  redis.call('HSET', queueKey, 'd', int(due))
end
-- Removes consumers, and then attachments, whose leases are over.
local function strike()
  ${SIGNALS}
  ${REMOVAL}
  ${LEAVING}
  local to = int(${ROLE} + now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', leasesKey, ${ROLE}, to, 'LIMIT', 0, ${MAX_STRUCK})) do
    lose(string.sub(member, 2))
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', leasesKey, '-inf', int(now), 'LIMIT', 0, ${MAX_STRUCK})) do
    local address = string.sub(member, 2)
    if redis.call('ZSCORE', leasesKey, 'c' .. address) then lose(address) end
    forget(address)
  end
  due = ${NEVER}
  for role = 0, 1 do
    local first = redis.call('ZRANGEBYSCORE', leasesKey, int(role * ${ROLE}), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    if first then due = math.min(due, num(first) - role * ${ROLE}) end
  end
  redis.call('HSET', queueKey, 'd', int(due))
end
local function openQueue(address)
  load(address)
  if expiresAt <= now then
    redis.call('UNLINK', queueKey, streamKey, leasesKey, idsKey, turnsKey, waitingKey, metadataKey)
    attachment = nil
    return false
  end
  if due <= now then
    strike()
    load(address)
    if attachment and num(redis.call('ZSCORE', leasesKey, 'a' .. address)) <= now then attachment = nil end
  end
  return true
end
`
