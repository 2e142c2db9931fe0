import { DIGEST_LENGTH, MAX_HELD_OPTIONS } from '../../holder.ts'
import { BATCH_SIZE, MAX_ASSIGNED_BYTES, MAX_BATCHES, MAX_INLINE_PAYLOAD } from './dispatch.ts'

/** Jobs that a search for lost replies reads, at most, for each length of lease. */
const MAX_SEARCHED = 5_000
/** The search allows for so much between the clocks, ms. */
const SEARCH_MARGIN = 2_000

/**
 * Finds what holders have taken.
 *
 *   findTaken(holders, found)   calls found(holder, id, fence, address) for each that has taken a job. holders: of each, its secret,
 *                               its lease, ms, and how long ago its call was sent at most, ms
 */
const FIND: string = /* lua */ `
local function findTaken(holders, found)
  local bySecret, ages = {}, {}
  for _, holder in ipairs(holders) do
    bySecret[holder.secret] = holder
    ages[holder.lease] = math.max(ages[holder.lease] or 0, holder.age)
  end
  clock()
  for lease, age in pairs(ages) do
    local from, to = now + lease - age - ${SEARCH_MARGIN}, now + lease + ${SEARCH_MARGIN}
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', deadlinesKey, int(from), int(to), 'LIMIT', 0, ${MAX_SEARCHED})) do
      local id = string.match(member, '^(%S+) ')
      local owner, fence = unpack(id and redis.pcall('HMGET', jobKey(id), 'o', 'f') or {})
      local holder = owner and bySecret[string.sub(owner, ${DIGEST_LENGTH + 1})]
      if holder and holder.lease == lease and not holder.isServed then
        holder.isServed = true
        found(holder, id, fence, owner)
      end
    end
  end
end
`

/**
 * Gives ready jobs to holders, each of which has accepted its attempt then. A repetition gives the same jobs.
 *
 * ARGV    1 a blank, and the ms since the call was first sent; '' for the first time; then for each command its scope; then for
 *         each holder: 1 `<command> <lease>`  2 secret
 * returns for each holder 0 none is ready, 1 this step has read enough, 2 none is ready, but some are due, or id, fence,
 *         failures, options, and the payload unless it is too long; then, once, the server's time in ms
 */
export const TAKE: string = /* lua */ `
${FIND}
local age, holderArgs, holders, replies = ARGV[argBase + 1], argBase + 1 + #commands, {}, {}
clock()
for n, command in ipairs(commands) do command.scope = ARGV[argBase + 1 + n] end
for n = 1, (#ARGV - holderArgs) / 2 do
  local command, lease = string.match(ARGV[holderArgs + 2 * n - 1], '^(%d+) (%d+)$')
  holders[n] = { reply = n, command = commands[num(command)], lease = num(lease), age = num(age), secret = ARGV[holderArgs + 2 * n] }
  replies[n] = 0
end

-- Of a longer payload, one reply could have many.
local function inReply(payload) return #payload <= ${MAX_INLINE_PAYLOAD} and payload or nil end

if age ~= '' then
  findTaken(holders, function(holder, id, fence)
    local key = jobKey(id)
    local failures, options, firstPiece = unpack(redis.call('HMGET', key, 'a', 'b', 'p'))
    replies[holder.reply] = { id, fence, int(num(failures)), options or '', inReply(payloadOf(key, firstPiece)) }
  end)
end

-- The address of a holder, as holder.ts computes it.
local function addressOf(holder, job, fence)
  local options = #job.options > ${MAX_HELD_OPTIONS} and '-' or '+' .. job.options
  local attempt = job.id .. ' ' .. fence .. ' ' .. job.failures .. ' ' .. options
  return redis.sha1hex(holder.secret .. holder.command.scope .. '\\n' .. attempt) .. holder.secret
end

local function give(job, holder)
  local fence = fenceAfter(job.lastFence)
  job.options, job.failures = job.options or '', int(num(job.failures))
  redis.call('HSET', job.key, 'o', addressOf(holder, job, fence), 'f', fence, 'l', '1')
  tally('a')
  leases[#leases + 1] = int(now + holder.lease)
  leases[#leases + 1] = dueMember(job.id, holder.command)
  assignedBytes = assignedBytes + #job.payload
  replies[holder.reply] = { job.id, fence, job.failures, job.options, inReply(job.payload) }
end

-- Whether a delay or a lease has ended, of whichever command.
local isDue
local function isAnyDue()
  if isDue == nil then isDue = #redis.call('ZRANGEBYSCORE', deadlinesKey, '-inf', int(now), 'LIMIT', 0, 1) > 0 end
  return isDue
end

local function takeReady(command, holders)
  local served, batch = 0, 0
  while served < #holders do
    batch = batch + 1
    if assignedBytes > ${MAX_ASSIGNED_BYTES} or batch > ${MAX_BATCHES} then
      for n = served + 1, #holders do replies[holders[n].reply] = 1 end
      return
    end
    local jobs, removed = shiftReady(command, math.min(${BATCH_SIZE}, #holders - served))
    for n, job in ipairs(jobs) do give(job, holders[served + n]) end
    served = served + #jobs
    writeLeases()
    if removed == 0 then
      for n = served + 1, #holders do replies[holders[n].reply] = isAnyDue() and 2 or 0 end
      return
    end
  end
end

for _, command in ipairs(commands) do
  local waiting = {}
  for _, holder in ipairs(holders) do
    if holder.command == command and not holder.isServed then waiting[#waiting + 1] = holder end
  end
  local paused = redis.call('SMISMEMBER', pausedKey, '', command.segment)
  if paused[1] + paused[2] == 0 then takeReady(command, waiting) end
end
writeTotals()
replies[#replies + 1] = now
return replies
`

/**
 * Finds what holders have taken whose replies were lost.
 *
 * ARGV    for each holder: 1 `<lease> <ms since its call was sent, at most>`  2 secret
 * returns for each holder id, fence and address, or 0; then, once, the server's time in ms
 */
export const FIND_TAKEN: string = /* lua */ `
${FIND}
local holders, replies = {}, {}
for n = 1, (#ARGV - argBase) / 2 do
  local lease, age = string.match(ARGV[argBase + 2 * n - 1], '^(%d+) (%d+)$')
  holders[n] = { reply = n, lease = num(lease), age = num(age), secret = ARGV[argBase + 2 * n] }
  replies[n] = 0
end
findTaken(holders, function(holder, id, fence, address)
  replies[holder.reply] = { id, fence, address }
end)
replies[#replies + 1] = now
return replies
`
