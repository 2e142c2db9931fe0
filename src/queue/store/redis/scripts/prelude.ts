import { FORMAT, ID_LENGTH } from '../../../../kernel/keys.ts'
import { SERVER_CLOCK } from '../../../../kernel/redis/call.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/server-clock.ts'

/**
 * What the scripts of the queue share.
 *
 * KEYS begin with  t  what has a time: leases of attempts, and delays · d  what of it is delayed · x  failed jobs, and
 *                  c  completed jobs, as far as they are kept for being listed · q  names of commands · s  what is paused;
 *                  then for each command  w  what waits, in order · i  places of idle workers, behind a 'P' while paused
 *                  r  workers · z  what waits with a priority; then the records of the jobs.
 * ARGV begin with  prefix of inbox channels, '1' on a cluster, ms in which a delivery must be accepted, highest fence
 *                  seen, number of commands; then for each command its name as it stands in names.
 *
 * Fields of a job's record: those of a resource (see locker/scripts/prelude.ts), the lease's end standing in t:
 *   lease    o worker ('' when there is none) · f last fence · l '1' once accepted · g progress · j an attempt that has
 *            logged, and how many lines
 *   outcome  k kind (v, e, x) · v e bytes · s fence · Y generation · vu eu served until · L 'x' or 'c' when listed
 *            F the last attempt that was not ended by its worker
 *   parks    w the first · n how many others · @<inbox><nonce> one each, with the generation that it waits for
 * and of the job alone:
 *   y generation · m command · p p1 … payload · b options · c nonce of who submitted without waiting · a failed, z lost
 *   attempts · R the last attempt that was given back · d due · r priority and order · u '1' to cancel it unwanted
 *   N P B C  the next generation, its payload, options and submitter: of 'rerun'
 *
 * A hash whose values have up to 64 bytes stays in Redis's compact encoding, so a payload of up to 256 bytes is cut in pieces
 * of that size: a waiting job of 100 bytes then takes 420 bytes of memory instead of 660.
 *
 * Jobs that a script finds in w are not among its KEYS. They are read before anything is written; one that cannot be
 * read, because its slot is on the move, is put off to t, and looked after by a tick, which has it among its KEYS.
 */
export interface QueueClock {
  /** Defines `us` and `now` (ms). */
  clock: string
  /** Defines `keepFor(key, ms)`: how long a key is kept. */
  expire: string
}

/** Time as the server tells it. */
export const SERVER_QUEUE_CLOCK: QueueClock = {
  clock: SERVER_CLOCK,
  expire: `
local function keepFor(key, ms) redis.call('PEXPIRE', key, int(math.min(${MAX_EXACT_INTEGER}, ms))) end`,
}

/** Keys before those of the commands, and of each command. */
export const SHARED_KEYS = 6
export const KEYS_PER_COMMAND = 4
/** Arguments before the names of the commands. */
export const HEAD_ARGS = 5

/** A payload of up to so many pieces is cut up. */
const MAX_PIECES = 4
const PIECE_BYTES = 64
const MAX_SPLIT_BYTES = MAX_PIECES * PIECE_BYTES
const PIECE_NAMES = Array.from({ length: MAX_PIECES - 1 }, (_, index) => `'p${index + 1}'`).join(', ')

/** What of a record belongs to one generation, and not to the next. */
export const GENERATION_FIELDS: string = `'p', ${PIECE_NAMES}, 'b', 'c', 'a', 'z', 'l', 'g', 'R', 'vu', 'eu'`

const DAY = 24 * 60 * 60_000

/** How long a worker is known that says nothing of itself, and its places are kept, ms. */
export const WORKER_TTL: number = 15 * 60_000

/** Messages to one process go together up to so many bytes. */
const MAX_MESSAGE_BYTES = 256 * 1024

/** Names the keys and arguments that all scripts begin with, and defines what they share. */
export function prelude(time: QueueClock): string {
  return `
local function num(x) return tonumber(x or '0') or 0 end
local function int(x) return string.format('%.0f', x) end
${time.expire}
-- Where a slot is leaving, a key that a script has emptied cannot be used again: it would fail half-way. So it does not begin.
local elsewhere = ARGV[2] == '1' and redis.pcall('EXISTS', KEYS[1] .. '-')
if type(elsewhere) == 'table' and string.find(elsewhere.err, 'non local', 1, true) then
  return redis.error_reply('TRYAGAIN The slot is on the move')
end

local us, now
local function clock()
  if now then return end
  local function read()${time.clock}
    return us, now
  end
  us, now = read()
end

-- Keeps a key for at least so long from now on. Asks first: it is renewed once a day, and when the key is new.
local function extend(key, ms)
  if redis.call('PTTL', key) < ms then keepFor(key, ms + ${DAY}) end
end

local T, D, X, C, Q, S = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local base = string.sub(T, 1, -2)
local channels, cluster, accept, seen = ARGV[1], ARGV[2] == '1', num(ARGV[3]), num(ARGV[4])
local commands = {}
for n = 1, num(ARGV[5]) do
  local k = ${SHARED_KEYS} + ${KEYS_PER_COMMAND} * (n - 1)
  commands[n] = { w = KEYS[k + 1], i = KEYS[k + 2], r = KEYS[k + 3], z = KEYS[k + 4], name = ARGV[${HEAD_ARGS} + n] }
end
local K, A = ${SHARED_KEYS} + ${KEYS_PER_COMMAND} * #commands, ${HEAD_ARGS} + #commands

-- What most jobs of one call say of themselves is the same, and parsed once: a tenth of the time of a call with 25 jobs.
local function once(parse)
  local parsed = {}
  return function(text)
    local found = parsed[text]
    if not found then
      found = parse(text)
      parsed[text] = found
    end
    return found
  end
end

-- A number of a job that only grows: the next after one, and from least on. Fails, before anything is written, when that is not exact.
local function grown(id, last, least)
  local next = math.max(num(last) + 1, least)
  if not (next <= ${MAX_EXACT_INTEGER}) then error('The record of the job ' .. id .. ' can be run no more: no number above those in it is exact', 0) end
  return next
end
local function member(id, command) return id .. ' ' .. command.name end
local function idOf(key) return string.sub(key, #base + 3) end
local function remove(key, fields)
  for from = 1, #fields, 1000 do
    redis.call('HDEL', key, unpack(fields, from, math.min(from + 999, #fields)))
  end
end

local function putPayload(set, bytes)
  if #bytes <= ${PIECE_BYTES} or #bytes > ${MAX_SPLIT_BYTES} then
    set[#set + 1] = 'p' set[#set + 1] = bytes
    return
  end
  for n = 0, math.ceil(#bytes / ${PIECE_BYTES}) - 1 do
    set[#set + 1] = n == 0 and 'p' or 'p' .. n
    set[#set + 1] = string.sub(bytes, n * ${PIECE_BYTES} + 1, (n + 1) * ${PIECE_BYTES})
  end
end
local function payloadOf(key, first)
  if not first or #first ~= ${PIECE_BYTES} then return first or '' end
  local pieces = redis.call('HMGET', key, ${PIECE_NAMES})
  for n = 1, #pieces do pieces[n] = pieces[n] or '' end
  return first .. table.concat(pieces)
end

-- Messages to parks, all that go to one process together.
local mail, inboxes = {}, {}
local function post(park, message)
  local inbox = string.sub(park, 1, ${ID_LENGTH})
  if not mail[inbox] then
    mail[inbox] = {}
    inboxes[#inboxes + 1] = inbox
  end
  table.insert(mail[inbox], string.sub(park, ${ID_LENGTH + 1}) .. message)
end
local function send(inbox, messages)
  local from, receivers = 1, nil
  while from <= #messages do
    local to, size = from, #messages[from]
    while to < #messages and size + #messages[to + 1] <= ${MAX_MESSAGE_BYTES} do
      to = to + 1
      size = size + #messages[to]
    end
    local text = '${FORMAT}' .. messages[from]
    if to > from then
      local parts = { '${FORMAT}*' }
      -- Not joined with its length first: each new string is hashed whole.
      for n = from, to do
        parts[#parts + 1] = #messages[n] .. ':'
        parts[#parts + 1] = messages[n]
      end
      text = table.concat(parts)
    end
    local reply = redis.pcall('PUBLISH', channels .. inbox, text)
    if type(reply) == 'number' then receivers = math.min(receivers or reply, reply) end
    from = to + 1
  end
  return receivers
end
local function sendMail()
  for _, inbox in ipairs(inboxes) do send(inbox, mail[inbox]) end
end
`
}
