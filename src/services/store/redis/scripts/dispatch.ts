import { ID_LENGTH } from '../../../../kernel/keys.ts'

/**
 * Lua: `sendCalls(process, load, messages)` sends calls that were added to the load of a process, and writes its load. Strikes
 * it off if it does not listen. Returns 'sent', 'gone', or 'failed' and an error: then the calls are not in the load.
 */
export const SEND_CALLS: string = /* lua */ `
local function sendCalls(process, load, messages)
  writeLoad(process, load)
  local receivers, failure = sendTo(string.sub(process, 1, ${ID_LENGTH}), messages)
  if receivers == 0 and not isCluster then
    strike(process)
    return 'gone'
  end
  if receivers then return 'sent' end
  load.dealt = int(load.dealt - #messages / 2)
  writeLoad(process, load)
  rank(process, load)
  return 'failed', failure
end
`

/**
 * Deals calls to the processes with the least load.
 *
 * ARGV    5 service  6 number; for each call: targets, kind, more fields, body. Targets are the preferred process ('-': none)
 *         and those that are avoided, separated by blanks.
 * returns a line for each call: `D process leaseLeft`; N: there is no process; F: all are full; E and an error
 */
export const DISPATCH: string = /* lua */ `
local ITEM = 4
local items = (#ARGV - 6) / ITEM
local function item(n) return unpack(ARGV, 7 + ITEM * (n - 1), 6 + ITEM * n) end

local loads = {}
local function loadOf(process)
  if not loads[process] then
    local load, left = readLoad(process), leaseLeft(process)
    if not load or not left then return nil end
    load.leaseLeft = left
    loads[process] = load
  end
  return loads[process]
end

local function choose(targets)
  if targets == '-' then return redis.call('ZRANGE', freeKey, 0, 0)[1] end
  local preferred, avoided, count = nil, {}, 0
  for process in string.gmatch(targets, '%S+') do
    if preferred then
      avoided[process] = true
      count = count + 1
    else
      preferred = process
    end
  end
  if preferred and redis.call('ZSCORE', freeKey, preferred) and not avoided[preferred] then return preferred end
  local free = redis.call('ZRANGE', freeKey, 0, count)
  for _, process in ipairs(free) do
    if not avoided[process] then return process end
  end
  return free[1]
end
-- A process of F alone was written by hand, or the other keys were evicted.
local function chosen(targets)
  while true do
    local process = choose(targets)
    if not process or loadOf(process) then return process end
    redis.call('ZREM', freeKey, process)
  end
end

strikeExpired()
local replies, left, isChanged = {}, {}, false
for n = 1, items do left[n] = n end
while #left > 0 do
  local batches, processes = {}, {}
  for _, n in ipairs(left) do
    local targets, kind, rest, body = item(n)
    local process = chosen(targets)
    if process then
      isChanged = true
      local load = loads[process]
      load.dealt = int(load.dealt + 1)
      rank(process, load)
      local batch = batches[process]
      if not batch then
        batch = { numbers = {}, messages = {} }
        batches[process] = batch
        processes[#processes + 1] = process
      end
      local messages = batch.messages
      batch.numbers[#batch.numbers + 1] = n
      messages[#messages + 1] = numbered(process, kind, load, rest)
      messages[#messages + 1] = body
      replies[n] = 'D ' .. process .. ' ' .. int(load.leaseLeft)
    else
      replies[n] = redis.call('ZCARD', leasesKey) == 0 and 'N' or 'F'
    end
  end
  left = {}
  for _, process in ipairs(processes) do
    local batch = batches[process]
    local outcome, failure = sendCalls(process, loads[process], batch.messages)
    if outcome == 'gone' then
      for _, n in ipairs(batch.numbers) do left[#left + 1] = n end
    elseif outcome == 'failed' then
      for _, n in ipairs(batch.numbers) do replies[n] = 'E' .. string.gsub(failure, '%c', ' ') end
    end
  end
  table.sort(left)
end
local reply = table.concat(replies, '\\n')
return isChanged and keepReply(reply) or reply
`

/**
 * Deals a call to all processes.
 *
 * ARGV    5 service  6 number  7 kind  8 more fields  9 body
 * returns a line for each process that listens: `D process leaseLeft`
 */
export const DISPATCH_ALL: string = /* lua */ `
local kind, rest, body = unpack(ARGV, 7, 9)
strikeExpired()
local replies, failure = {}, nil
for _, process in ipairs(redis.call('ZRANGE', leasesKey, 0, -1)) do
  local load = readLoad(process)
  if load then
    load.dealt = int(load.dealt + 1)
    rank(process, load)
    local outcome, problem = sendCalls(process, load, { numbered(process, kind, load, rest), body })
    if outcome == 'sent' then replies[#replies + 1] = 'D ' .. process .. ' ' .. int(leaseLeft(process)) end
    failure = problem or failure
  end
end
if failure and #replies == 0 then return redis.error_reply(failure) end
return keepReply(table.concat(replies, '\\n'))
`
