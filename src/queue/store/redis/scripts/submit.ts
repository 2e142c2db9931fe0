import { PENDING_JOB_TTL, type Submission } from '../../store.ts'
import { GENERATION_FIELDS } from './prelude.ts'

/** Flags of a submission, as numbers that add up. */
const AWAITED = 1
const JOIN = 2
const RERUN = 4
const LIFO = 8
const ABORT_UNWANTED = 16
const REQUIRES_WORKER = 32

/**
 * ARGV    inbox, broadcast channel, message that calls for workers, how many may park; for each command its real name
 *         and how many of the jobs are for it;
 *         then for each job: `<command> <flags> <delay> <priority>`, nonce, payload, options
 * returns for each job 'C' created or 'J' joined, and the generation; 'X' conflict, 'U' unknown, 'O' overloaded;
 *         '!' failed, with the reason; or a pair, 'V' or 'E', fence and generation, and the bytes
 */
export const SUBMIT: string = `
local inbox, broadcast, call, cap = ARGV[A + 1], ARGV[A + 2], ARGV[A + 3], num(ARGV[A + 4])
for n, command in ipairs(commands) do
  command.real, command.count = ARGV[A + 3 + 2 * n], num(ARGV[A + 4 + 2 * n])
end
local first = A + 4 + 2 * #commands
clock()
local began = int(us)

-- The next free place for a job, if there is one. Those that were used are taken off the list at the end.
local function place(command)
  if not command.places then
    command.places, command.used = redis.call('LRANGE', command.i, 0, command.count - 1), 0
  end
  if command.places[1] == 'P' then return nil end
  return command.places[command.used + 1]
end

-- r: what the record holds of before, if anything. Returns the generation.
local function create(n, key, id, command, r, a, terms)
  local y = r[1] and int(grown(id, r[1], us)) or began
  grown(id, r[7], us)
  local set, payload = { 'y', y, 'm', command.real }, ARGV[a + 3]
  putPayload(set, payload)
  local function put(name, value) set[#set + 1] = name set[#set + 1] = value end
  if terms.waits then put('w', inbox .. ARGV[a + 2]) else put('c', ARGV[a + 2]) end
  if ARGV[a + 4] ~= '' then put('b', ARGV[a + 4]) end
  if terms.unwanted then put('u', '1') end
  local delay, rank = terms.delay, nil
  if terms.priority > 0 then
    rank = int(terms.priority) .. ' ' .. string.format('%016.0f%03d', us, n)
    put('r', rank)
  end
  if r[1] then
    if r[14] then redis.call('ZREM', r[14] == 'x' and X or C, id) end
    redis.call('HDEL', key, 'u', 'r', 'd', 'L', ${GENERATION_FIELDS})
  end
  local worker, fence = delay == 0 and place(command), nil
  if worker then
    fence = fenceAfter(r[7])
    put('o', worker)
    put('f', fence)
  end
  -- Refused when memory is out: before that, nothing is taken.
  redis.call('HSET', key, unpack(set))
  keepFor(key, delay + ${PENDING_JOB_TTL})
  if worker then
    command.used = command.used + 1
    hand(command, id, worker, { b = ARGV[a + 4], y = y, payload = payload }, fence)
  elseif delay > 0 then
    postpone(key, member(id, command), delay)
    -- Who runs or waits for something else does not know of it: one worker is told, so that somebody has the timer.
    local idle = redis.call('HRANDFIELD', command.r)
    if idle then post(idle, 't ' .. int(delay)) end
  else
    line(command, id, rank, terms.lifo)
  end
  return y
end

local termsOf = once(function(head)
  local c, flags, delay, priority = string.match(head, '^(%d+) (%d+) (%d+) (%d+)$')
  local function has(flag) return math.floor(flags / flag) % 2 == 1 end
  return { command = commands[num(c)], delay = num(delay), priority = num(priority),
    waits = has(${AWAITED}), joins = has(${JOIN}), reruns = has(${RERUN}), lifo = has(${LIFO}), unwanted = has(${ABORT_UNWANTED}), known = has(${REQUIRES_WORKER}) }
end)

local function submit(n)
  local key, a = KEYS[K + n], first + 4 * (n - 1)
  local id, terms = idOf(key), termsOf(ARGV[a + 1])
  local command = terms.command
  if not redis.call('HGET', key, 'y') then
    if terms.known and redis.call('EXISTS', command.r) == 0 then return 'U' end
    return 'C ' .. create(n, key, id, command, {}, a, terms)
  end
  local park = inbox .. ARGV[a + 2]
  local r = redis.call('HMGET', key, 'y', 'Y', 'k', 'vu', 'eu', 's', 'f', 'w', 'c', '@' .. park, 'n', 'p', 'N', 'L', 'C', 'u')
  local y, Y = num(r[1]), num(r[2])
  local waits, reruns = terms.waits, terms.reruns
  local function same() return terms.joins or ARGV[a + 3] == payloadOf(key, r[12]) end

  local again = r[8] == park or r[9] == ARGV[a + 2]

  if Y < y then
    if again then return 'C ' .. r[1] end
    if r[15] == ARGV[a + 2] then return 'C ' .. r[13] end
    if r[10] then return 'J ' .. r[10] end
    if waits and num(r[11]) >= cap then return 'O' end
    local generation, set, status = r[1], {}, 'J'
    -- What is to follow is the newest, even if that is what runs now.
    if not same() or (reruns and r[13]) then
      if not (r[13] and ARGV[a + 3] == redis.call('HGET', key, 'P')) then
        if not reruns then return 'X' end
        if not r[13] then status = 'C' end
        set = { 'N', r[13] or int(grown(id, y, us)), 'P', ARGV[a + 3], 'B', ARGV[a + 4], 'C', ARGV[a + 2] }
        generation = set[2]
      else
        generation = r[13]
      end
    end
    if waits then
      for _, x in ipairs({ '@' .. park, generation, 'n', num(r[11]) + 1 }) do set[#set + 1] = x end
    end
    if #set > 0 then redis.call('HSET', key, unpack(set)) end
    -- Whoever did not ask for it to end unwanted counts on it, waiting or not.
    if r[16] and not terms.unwanted then redis.call('HDEL', key, 'u') end
    return status .. ' ' .. generation
  end

  local fresh = (r[3] == 'v' and num(r[4]) > now) or (r[3] == 'e' and num(r[5]) > now)
  if again and not terms.waits then return 'C ' .. r[1] end
  if fresh then
    if same() then
      return (r[3] == 'v' and 'V ' or 'E ') .. int(num(r[6])) .. ' ' .. r[2], redis.call('HGET', key, r[3])
    end
    if not reruns then return 'X' end
  end
  -- Sent twice, and over meanwhile: it is not run again.
  if again then return 'C ' .. r[1] end
  if terms.known and redis.call('EXISTS', command.r) == 0 then return 'U' end
  return 'C ' .. create(n, key, id, command, r, a, terms)
end

local replies = {}
for n = 1, #KEYS - K do
  local done, head, bytes = pcall(submit, n)
  if not done then
    head = '!' .. (type(head) == 'table' and head.err or tostring(head))
  end
  replies[n] = bytes and { head, bytes } or head
end
for _, command in ipairs(commands) do
  if command.used and command.used > 0 then redis.call('LTRIM', command.i, command.used, -1) end
  if command.began and redis.call('EXISTS', command.r) == 0 then redis.pcall('PUBLISH', broadcast, call) end
end
sendMail()
deliver()
return replies
`

/** The flags of a submission, as the script reads them. */
export function flagsOf(submission: Submission): number {
  const { awaited: waits, conflict, lifo, abortUnwanted, requiresWorker: known } = submission
  return (
    (waits ? AWAITED : 0) +
    (conflict === 'join' ? JOIN : 0) +
    (conflict === 'rerun' ? RERUN : 0) +
    (lifo ? LIFO : 0) +
    (abortUnwanted ? ABORT_UNWANTED : 0) +
    (known ? REQUIRES_WORKER : 0)
  )
}
