import { MAX_SCANNED } from '../../../queue-record.ts'
import { MAX_BATCH, MAX_BATCH_BYTES } from '../../../store.ts'
import { LEAVING, REMOVAL } from './open.ts'
import { CHUNK, RANGES, ROLE } from './prelude.ts'
import { WAIT } from './push.ts'
import { SIGNALS } from './signals.ts'

/** Messages that are read from the stream at first, and then as many as fit by the largest one: they may be large. */
const FIRST_READ = 4

/**
 * Lua: `acknowledge(held, acked)` removes messages, of those that are held. Returns what remains of them. Both are ranges.
 */
const ACKNOWLEDGE = /* lua */ `
local function acknowledge(held, acked)
  local kept, ids, at = {}, {}, 1
  local function keepRange(from, to)
    if from <= to then kept[#kept + 1], kept[#kept + 2] = from, to end
  end
  for n = 1, #held, 2 do
    local from, to = held[n], held[n + 1]
    while acked[at] and acked[at] <= to do
      local low, high = math.max(from, acked[at]), math.min(to, acked[at + 1])
      for id = low, high do ids[#ids + 1] = int(id) end
      if low <= high then
        keepRange(from, low - 1)
        from = high + 1
      end
      -- It may go on in the next range.
      if acked[at + 1] > to then break end
      at = at + 2
    end
    keepRange(from, to)
  end
  removeAll(ids)
  return kept
end
`

/**
 * ARGV    3 address  4 lease  5 '1' if reliable  6 '1' if exclusive  7 discards up to this id
 * returns 1; 0: more is to be discarded; D: detached
 */
export const CONSUME: string = /* lua */ `
${SIGNALS}
${REMOVAL}
${LEAVING}
local address, lease, upTo = ARGV[3], num(ARGV[4]), num(ARGV[7])
openQueue(address)
if not attachment then return 'D' end
-- It consumed before, and could not say that it left.
if string.find(attachment, '/', 1, true) then lose(address) end
redis.call('HSET', queueKey, 'a' .. address, string.match(attachment, '^[^/]*') .. '/' .. int(lease) .. ' ' .. ARGV[5] .. ARGV[6])
redis.call('ZADD', leasesKey, int(${ROLE} + now + lease), 'c' .. address)
keep(leasesKey)
limit(now + lease)

local scanned = 0
while scanned < ${MAX_SCANNED} do
  local member = idsOf('r', 1)[1]
  if member then
    local id = string.sub(member, 3)
    if num(id) > upTo then return 1 end
    redis.call('ZREM', idsKey, member)
    removeAll({ id })
    scanned = scanned + 1
  else
    -- Those from the cursor on are nobody's turn yet: nothing is returned by their removal.
    local count = math.min(last, upTo) - cursor + 1
    if count <= 0 then return 1 end
    count = math.min(count, ${MAX_SCANNED} - scanned, ${CHUNK})
    local ids = {}
    for n = 1, count do ids[n] = int(cursor + n - 1) end
    redis.call('XDEL', streamKey, unpack(ids))
    scanned, cursor = scanned + count, cursor + count
    redis.call('HSET', queueKey, 'c', int(cursor))
  end
end
return 0
`

/**
 * Lua: `collect(held, want, isReliable, reply)` takes messages, and adds them to what is held and to the reply; returns whether
 * there are no more.
 */
const COLLECT = /* lua */ `
local function hold(held, id)
  local n = #held
  while n > 0 and held[n] > id do n = n - 2 end
  if n > 0 and held[n] == id - 1 then held[n] = id
  else
    table.insert(held, n + 1, id)
    table.insert(held, n + 2, id)
  end
end
local function collect(held, want, isReliable, reply)
  local limit = math.min(want, ${MAX_BATCH})
  local turns, changed, added, passed = {}, {}, {}, {}
  local count, bytes, scanned, largest, isFull = 0, 0, 0, 1, limit == 0
  local function write()
    if #changed > 0 then
      redis.call('HSET', turnsKey, unpack(changed))
      keep(turnsKey)
    end
    if #added > 0 then
      redis.call('ZADD', idsKey, unpack(added))
      keep(idsKey)
    end
    if #passed > 0 then redis.call('ZREM', idsKey, unpack(passed)) end
    changed, added, passed = {}, {}, {}
  end
  -- Takes or blocks a message. Otherwise, no more are taken.
  local function pass(id, field, body, mark)
    local size = bytes + #body
    if scanned == ${MAX_SCANNED} or count > 0 and size > ${MAX_BATCH_BYTES} then
      isFull = true
      return false
    end
    scanned, largest = scanned + 1, math.max(largest, #body)
    local redelivered, key = string.match(mark, '^%d+') or '0', string.sub(field, 2)
    if key ~= '' then
      local turn = turns[key] or redis.call('HGET', turnsKey, 'k' .. key)
      turns[key] = turn
      if turn and turn ~= id then
        added[#added + 1], added[#added + 2] = 0, 'b' .. #key .. ':' .. key .. sortable(id)
        return true
      end
      if isReliable then
        turns[key] = id
        for _, text in ipairs({ 'k' .. key, id, id, redelivered .. ' ' .. key }) do changed[#changed + 1] = text end
      end
    end
    hold(held, num(id))
    reply[#reply + 1], reply[#reply + 2] = id .. ' ' .. redelivered .. field, body
    count, bytes = count + 1, size
    isFull = count == limit
    return true
  end

  while not isFull do
    local members, ids = idsOf('r', limit), {}
    if #members == 0 then break end
    for n, member in ipairs(members) do ids[n] = string.sub(member, 3) end
    local marks = redis.call('HMGET', turnsKey, unpack(ids))
    for n, id in ipairs(ids) do
      local message = redis.call('XRANGE', streamKey, id, id)[1]
      -- Without a message, it was written by hand, or the stream was evicted.
      if not message or pass(id, message[2][1], message[2][2], marks[n] or '') then passed[#passed + 1] = members[n] end
      if isFull then break end
    end
    write()
  end
  local toRead = math.min(limit, ${FIRST_READ})
  while not isFull and cursor <= last do
    local fitting = math.max(1, math.floor((${MAX_BATCH_BYTES} - bytes) / largest))
    local messages = redis.call('XRANGE', streamKey, int(cursor), '+', 'COUNT', math.min(toRead, fitting))
    if #messages == 0 then cursor = last + 1 end
    local before = count
    for _, message in ipairs(messages) do
      local id = string.sub(message[1], 1, -3)
      if pass(id, message[2][1], message[2][2], '') then cursor = num(id) + 1 end
      if isFull then break end
    end
    write()
    -- Of those that are blocked, there may be more.
    toRead = math.min(${CHUNK}, limit - count + #messages - (count - before))
  end
  return not isFull
end
`

/**
 * ARGV    3 address  4 how many it has  5 how many more it wants  6 ranges of ids that it acknowledges
 * returns `isAll askAfter fence`, and for each message `id redelivered field` (without a blank between the last two) and its
 *         bytes; askAfter -1: never. D: detached  L: it does not consume
 */
export const TAKE: string = /* lua */ `
local address, have, want = ARGV[3], num(ARGV[4]), num(ARGV[5])
openQueue(address)
if not attachment then return 'D' end
local terms, isReliable, isExclusive = string.match(attachment, '^([^/]*/%d+ (%d)(%d))')
if not terms then return 'L' end
${RANGES}
local held = rangesOf(attachment)
if ARGV[6] ~= '' then
  ${REMOVAL}
  ${ACKNOWLEDGE}
  held = acknowledge(held, rangesOf(ARGV[6]))
end
if isExclusive == '1' and holder == '' then
  ${SIGNALS}
  holder = address
  redis.call('HSET', queueKey, 'h', holder, 'f', int(num(redis.call('HGET', queueKey, 'f')) + 1))
  announceHolder()
end
local fence = holder == address and redis.call('HGET', queueKey, 'f') or '0'
local reply = { '0 -1 ' .. fence }

local count = 0
for n = 1, #held, 2 do count = count + held[n + 1] - held[n] + 1 end
if count > have then
  redis.call('HSET', queueKey, 'a' .. address, terms .. textOf(held))
  local ids, bytes = expand(held, ${MAX_BATCH}), 0
  local marks = redis.call('HMGET', turnsKey, unpack(ids))
  for n, id in ipairs(ids) do
    local message = redis.call('XRANGE', streamKey, id, id)[1]
    if message then
      bytes = bytes + #message[2][2]
      if #reply > 1 and bytes > ${MAX_BATCH_BYTES} then break end
      reply[#reply + 1] = id .. ' ' .. (string.match(marks[n] or '', '^%d+') or '0') .. message[2][1]
      reply[#reply + 1] = message[2][2]
    end
  end
  -- The messages were removed by hand: it becomes a consumer again, and passes over them.
  return #reply > 1 and reply or 'L'
end

local isAll = want > 0
if holder == '' or holder == address then
  ${COLLECT}
  isAll = collect(held, want, isReliable == '1', reply)
end
redis.call('HSET', queueKey, 'c', int(cursor), 'a' .. address, terms .. textOf(held))
if #reply > 1 and maxsize > 0 then
  ${SIGNALS}
  tellRoom()
end
if not isAll then
  redis.call('ZREM', waitingKey, 'c' .. address)
  return reply
end
${WAIT}
wait(0, 'c' .. address)
local others = redis.call('ZRANGEBYSCORE', leasesKey, ${ROLE}, '+inf', 'WITHSCORES', 'LIMIT', 0, 2)
local lost = num(others[others[1] == 'c' .. address and 4 or 2])
reply[1] = '1 ' .. (lost > 0 and int(math.max(0, lost - ${ROLE} - now)) or '-1') .. ' ' .. fence
return reply
`

/** ARGV    3 address  4 ranges of ids that it acknowledges  5 ranges of ids that count as never given */
export const LEAVE: string = /* lua */ `
${SIGNALS}
${REMOVAL}
${LEAVING}
${ACKNOWLEDGE}
local address, unhanded = ARGV[3], {}
openQueue(address)
if not attachment or not string.find(attachment, '/', 1, true) then return 0 end
local held = acknowledge(rangesOf(attachment), rangesOf(ARGV[4]))
for _, id in ipairs(expand(rangesOf(ARGV[5]), ${MAX_SCANNED})) do unhanded[id] = true end
leave(address, held, true, unhanded)
return 1
`

/**
 * ARGV    3 address  4 after this id  5 how many it wants
 * returns as the script that takes, with the id from which it goes on in the place of the fence
 */
export const READ: string = /* lua */ `
local address, after, limit = ARGV[3], num(ARGV[4]), math.min(num(ARGV[5]), ${MAX_BATCH})
openQueue(address)
if not attachment then return 'D' end
after = math.min(after, last)
local ids, fields, bodies, bytes, largest, isAll, toRead = {}, {}, {}, 0, 1, nil, ${FIRST_READ}
repeat
  local fitting = math.max(1, math.floor((${MAX_BATCH_BYTES} - bytes) / largest))
  -- One more than is wanted shows whether there are more.
  local count = math.min(toRead, fitting, limit + 1 - #ids)
  local messages = redis.call('XRANGE', streamKey, int(after + 1), '+', 'COUNT', count)
  if #messages < count then isAll = true end
  for _, message in ipairs(messages) do
    local size = bytes + #message[2][2]
    if #ids == limit or #ids > 0 and size > ${MAX_BATCH_BYTES} then
      isAll = false
      break
    end
    local id = string.sub(message[1], 1, -3)
    ids[#ids + 1], fields[#ids + 1], bodies[#ids + 1] = id, message[2][1], message[2][2]
    after, bytes, largest = num(id), size, math.max(largest, #message[2][2])
  end
  toRead = limit + 1
until isAll ~= nil
if isAll then
  ${WAIT}
  wait(1, 'r' .. address)
else
  redis.call('ZREM', waitingKey, 'r' .. address)
end
local reply = { (isAll and '1' or '0') .. ' -1 ' .. int(after) }
if #ids > 0 then
  local marks = redis.call('HMGET', turnsKey, unpack(ids))
  for n, id in ipairs(ids) do
    reply[2 * n] = id .. ' ' .. (string.match(marks[n] or '', '^%d+') or '0') .. fields[n]
    reply[2 * n + 1] = bodies[n]
  end
end
return reply
`
