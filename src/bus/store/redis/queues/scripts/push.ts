import { ROLE, WAITING_COUNT } from './prelude.ts'
import { SIGNALS } from './signals.ts'

/** Lua: `wait(role, member)` lets somebody wait, unless it does. */
export const WAIT: string = /* lua */ `
local function wait(role, member)
  redis.call('ZADD', waitingKey, 'NX', int(role * ${ROLE} + now), member)
  keep(waitingKey)
end
`

/**
 * ARGV    3 address  4 number of the batch  5 '1' if it awaits room; for each message: its field in the stream, its bytes
 * returns `first count`; D: detached
 */
export const PUSH: string = /* lua */ `
local address, number, awaitsRoom = ARGV[3], ARGV[4], ARGV[5] == '1'
openQueue(address)
local watches, known, first, count, consumer = string.match(attachment or '', '^(%d) (%d+) (%d+) (%d+)(.*)$')
if not watches then return 'D' end
if num(number) <= num(known) then return first .. ' ' .. count end
local total = (#ARGV - 5) / 2
local accepted = maxsize > 0 and math.max(0, math.min(total, maxsize - ${WAITING_COUNT})) or total
for n = 1, accepted do
  local id, field, bytes = int(last + n), ARGV[4 + 2 * n], ARGV[5 + 2 * n]
  if not redis.call('XADD', streamKey, 'NOMKSTREAM', id, field, bytes) then
    redis.call('XADD', streamKey, id, field, bytes)
    keep(streamKey)
  end
end
local reply = int(last + 1) .. ' ' .. accepted
last = last + accepted
redis.call('HSET', queueKey, 'l', int(last), 'a' .. address, watches .. ' ' .. number .. ' ' .. reply .. consumer)
if accepted < total and awaitsRoom then
  ${WAIT}
  wait(2, 'p' .. address)
end
if accepted > 0 and redis.call('EXISTS', waitingKey) == 1 then
  ${SIGNALS}
  wakeReaders()
  wakeConsumers(accepted)
end
return reply
`
