import { ID_LENGTH } from '../../../../../kernel/keys.ts'
import { OUTBOX } from '../../../../../kernel/redis/outbox.ts'
import { CHUNK, ROLE, WAITING_COUNT } from './prelude.ts'

/**
 * Signals to attachments, see wire.ts.
 *
 *   wakeReaders()
 *   wakeConsumers(count)
 *   tellRoom()                   if there is room
 *   addresses(watching)          all attachments, by the end of their leases; or those that watch the exclusive consumer
 *   announceHolder()
 *   sendAll(addresses, letter)
 */
export const SIGNALS: string = /* lua */ `
${OUTBOX}
local function sendAll(addresses, letter)
  for _, address in ipairs(addresses) do publish(address, letter) end
  sendOutbox()
  outbox, inboxes = {}, {}
end
-- Returns whether the process listens.
local function send(address, letter)
  local receivers = sendTo(string.sub(address, 1, ${ID_LENGTH}), { string.sub(address, ${ID_LENGTH + 1}), letter })
  return isCluster or (receivers or 0) > 0
end
-- The first who wait in a role: they do not wait any more.
local function called(role, count)
  local from, to = int(role * ${ROLE}), '(' .. int((role + 1) * ${ROLE})
  local found = redis.call('ZRANGEBYSCORE', waitingKey, from, to, 'LIMIT', 0, count)
  if #found > 0 then redis.call('ZREM', waitingKey, unpack(found)) end
  for n, member in ipairs(found) do found[n] = string.sub(member, 2) end
  return found
end
local function wakeAll(role, letter)
  repeat
    local found = called(role, ${CHUNK})
    sendAll(found, letter)
  until #found < ${CHUNK}
end
local function wakeReaders() wakeAll(1, 'm') end
local function wakeConsumers(count)
  if holder ~= '' then
    if count > 0 and redis.call('ZREM', waitingKey, 'c' .. holder) == 1 then send(holder, 'm') end
    return
  end
  while count > 0 do
    local found = called(0, math.min(count, ${CHUNK}))
    if #found == 0 then return end
    for _, address in ipairs(found) do
      if send(address, 'm') then count = count - 1 end
    end
  end
end
local function tellRoom()
  if maxsize > 0 and ${WAITING_COUNT} < maxsize then wakeAll(2, 'r') end
end
local function addresses(watching)
  local members, found = redis.call('ZRANGEBYSCORE', leasesKey, '-inf', '(${ROLE}'), {}
  for from = 1, #members, ${CHUNK} do
    local to = math.min(#members, from + ${CHUNK - 1})
    local texts = watching and redis.call('HMGET', queueKey, unpack(members, from, to))
    for n = from, to do
      if not watching or string.sub(texts[n - from + 1] or '', 1, 1) == '1' then
        found[#found + 1] = string.sub(members[n], 2)
      end
    end
  end
  return found
end
local function announceHolder() sendAll(addresses(true), 'h') end
`
