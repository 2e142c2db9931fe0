import { SERVER_CLOCK } from '../../../../kernel/redis/call.ts'
import { OUTBOX } from '../../../../kernel/redis/outbox.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/server.ts'
import { COMMAND_SAMPLE, MAX_KNOWN_COMMANDS, PENDING_JOB_TTL } from '../../store.ts'

/**
 * The layout of a queue in Redis, and what its scripts share. queue-model.ts specifies the transitions.
 *
 * All keys of a queue begin with the same hash tag. An address is the inbox of a process and a nonce: of a worker, or of a
 * waiter (then it is a park). Times are ms since the epoch by the server's clock.
 *
 *   key         type  contents                                          expires with
 *   t           zset  `id segment` of active and delayed jobs, by the   its latest entry, about
 *                     end of their lease or delay
 *   d           zset  the delayed ones of these                         its latest entry, about
 *   x, c        zset  ids of failed, completed jobs that are kept for   its latest entry
 *                     being listed, by their expiry
 *   q           hash  command segment -> command name, of those that    PENDING_JOB_TTL after the last change
 *                     have or had ready jobs, workers or a pause
 *   s           set   segments of paused commands; '' means all         PENDING_JOB_TTL
 *   n           hash  the totals of the queue, counted by the fields    PENDING_JOB_TTL after a worker set its capacity, or
 *                     below                                             a hundredth increment of a field; POST_KNOWN_FOR
 *                                                                       after the queue was erased
 *   w/segment   list  ids of ready jobs in order; '!' stands for the    PENDING_JOB_TTL
 *                     first job of z/segment that is left
 *   z/segment   zset  ready jobs with a priority: order and id, by      PENDING_JOB_TTL
 *                     -priority
 *   i/segment   list  free slots: the address of the worker of each;    WORKER_TTL
 *                     the first entry is 'P' while paused
 *   r/segment   hash  worker address -> capacity                        WORKER_TTL
 *   j/id        hash  the record of a job                               the job: see QueueModel
 *   l/id        list  the log of a job                                  LOG_TTL after the last line
 *   b/key       hash  a post of several jobs: h digest, c nonce,        as long as the post is known
 *                     y generation, x the erasures before it
 *
 *   field       meaning                                   written by            removed by
 *   -- the job
 *   m           command name                              submit                ·
 *   y           generation                                submit, retry,        ·
 *                                                         startNext, terminate
 *   p, p1 … p3  payload, in pieces                        submit, startNext     the next generation, but not a retry
 *   b           options, unless ''                        submit, startNext     the same
 *   u           '1': cancel it when its last waiter       submit                a submission without it; submit of the
 *               leaves                                                          next generation
 *   r           `priority order`                          submit                submit of the next generation
 *   d           when its delay ends                       submit, finish        processDue, terminate
 *   -- the last attempt
 *   o           address of its worker, or of the holder   assign, renew, take   settle (''), finish, processDue
 *               that it was given to; '' or absent: none
 *   f           its fence                                 assign, take          ·
 *   l           '1': its worker has accepted it           renew, take           finish, processDue, the next generation
 *   g           its progress                              publishProgress       finish, the next generation
 *   j           `fence lines` of the last that logged     appendLog             ·
 *   a, z        attempts that failed, that stalled        finish; processDue    the next generation
 *   R           fence of the last that ended as retry     finish                the next generation
 *               or requeue
 *   F           fence of the last that was not ended      terminate,            ·
 *               by its worker                             processDue
 *   -- the last outcome
 *   k           kind: v value, e error, x removed         settle, terminate     ·
 *   s, Y        its fence, its generation                 settle                ·
 *   v, e        bytes of the value, of the failure        settle                terminate
 *   vu, eu      until when they are fresh                 settle                the next generation
 *   L           'x' or 'c': the zset that lists it        settle                terminate, retry, submit, no room
 *   -- the waiters
 *   w           park of the submitter that created the    submit                settle (''), unpark, retry
 *               generation, if it waits
 *   c           its nonce otherwise                       submit, settle,       the next generation
 *                                                         unpark, terminate
 *   n           how many others are parked                submit, query         settle, unpark
 *   @park       one field each: the generation that it    submit, query         settle, unpark
 *               waits for
 *   -- the generation that follows
 *   N, P, B, C  its number, payload, options, nonce       submit                startNext, terminate
 *   D           `due rank`: how it starts                 submit                startNext, terminate
 *
 *   total       counts                                    written by
 *   s           jobs that were submitted, not joined      submit
 *   v, e        jobs that ended with a value, with a      settle
 *               failure
 *   V, E        the same, where the last attempt had not  settle
 *               been accepted: it counts as taken, too
 *   a           attempts that were accepted               renew, take
 *   R           attempts that ended as retry and had not  finish
 *               been accepted
 *
 * So a script that ends a job counts that, and that its attempt was taken, by one command.
 *
 * n has the field x besides: how often the queue was erased. A post that was made before that is no longer known.
 *
 * A hash whose values have up to 64 bytes stays in Redis's compact encoding, so a payload of up to 256 bytes is split into
 * pieces of that size: a waiting job of 100 bytes then takes 420 bytes of memory instead of 660.
 *
 * Jobs that a script finds in w are not among its KEYS. They are read before anything is written. A job that cannot be
 * read, because its slot is being migrated, goes to t: processDue has it among its KEYS.
 *
 * Conformance tests replace both fragments, so that time is an argument.
 */
export interface QueueClock {
  /** Defines `us` and `now` (ms), since the epoch. */
  clock: string
  /** Defines `expire(key, ms)`: the key may be deleted after that. */
  expire: string
}

/** Time as the server tells it. */
export const SERVER_QUEUE_CLOCK: QueueClock = {
  clock: SERVER_CLOCK,
  expire: /* lua */ `
local function expire(key, ms) redis.call('PEXPIRE', key, int(math.min(${MAX_EXACT_INTEGER}, ms))) end`,
}

/** The field of n that counts how often the queue was erased: what a post has noted is not known after that. */
export const ERASURES = 'x'

/** KEYS that each script begins with: t d x c q s n; then, for each command, w i r z. */
const SHARED_KEYS = 7
const KEYS_PER_COMMAND = 4

/** ARGV that each script begins with, before the segments of the commands. */
const HEAD_ARGS = 5

/** A payload is split into so many pieces at most. */
const MAX_PIECES = 4
const PIECE_BYTES = 64
const MAX_SPLIT_BYTES = MAX_PIECES * PIECE_BYTES
const PIECE_NAMES = Array.from({ length: MAX_PIECES - 1 }, (_, index) => `'p${index + 1}'`).join(', ')

/** The fields of a record that belong to one generation. */
export const GENERATION_FIELDS: string = `'p', ${PIECE_NAMES}, 'b', 'c', 'a', 'z', 'l', 'g', 'R', 'vu', 'eu'`

const DAY = 24 * 60 * 60_000

/** How long a worker and its slots are known after it last set its capacity, ms. */
export const WORKER_TTL: number = 15 * 60_000

/**
 * Names the KEYS and ARGV that every script begins with, and defines the functions that scripts share.
 *
 * KEYS    t d x c q s n; for each command w i r z; then what the script says
 * ARGV    1 prefix of inbox channels  2 '1' on a cluster  3 ms in which a delivery must be accepted
 *         4 highest fence seen  5 number of commands; then the segment of each; then what the script says
 *
 *   keyBase, argBase              how many KEYS and ARGV come before those of the script
 *   num(text)                     a field as a number; 0 when it is absent
 *   int(number)                   a number as text, all digits
 *   clock()                       reads the time into `us` and `now`, once
 *   extend(key, ms)               keeps a key for at least so long; asks first, since most keys are kept already
 *   memoized(parse)               caches the results of `parse`: most jobs of a call have the same options, and parsing
 *                                 them once saves a tenth of the time of a call with 25 jobs
 *   nextNumber(id, last, least)    the number after `last`, at least `least`; raises an error when it is not exact
 *   dueMember(id, command)        the member of t and d
 *   areTooManyKnown()             whether more than MAX_KNOWN_COMMANDS are known
 *   forgetNeedless(segment)       forgets a command that has no ready job, worker or pause
 *   registerCommand(command, name)   makes a command known, and forgets some needless ones if there are too many
 *   tally(field)                  counts one more in the totals, when writeTotals() is called
 *   writeTotals()                 writes what was counted: one command for each field, however many jobs the script has
 *
 * and those of kernel/redis/outbox.ts.
 */
export function prelude(time: QueueClock): string {
  return /* lua */ `
local PRIORITY_MARKER, PAUSED_MARKER = '!', 'P'
local function num(text) return tonumber(text or '0') or 0 end
local function int(number) return string.format('%.0f', number) end
${time.expire}
-- While a slot is being migrated, a key that a script has emptied cannot be used again: the script would fail half-way.
local probe = ARGV[2] == '1' and redis.pcall('EXISTS', KEYS[1] .. '-')
if type(probe) == 'table' and string.find(probe.err, 'non local', 1, true) then
  return redis.error_reply('TRYAGAIN The slot is being migrated')
end

local us, now
local function clock()
  if now then return end
  local function read()${time.clock}
    return us, now
  end
  us, now = read()
end

local function extend(key, ms)
  if redis.call('PTTL', key) < ms then expire(key, ms + ${DAY}) end
end

local deadlinesKey, delayedKey, failedKey, completedKey, commandsKey, pausedKey, totalsKey = unpack(KEYS, 1, ${SHARED_KEYS})
local base = string.sub(deadlinesKey, 1, -2)
local channels, isCluster, acceptWithin, highestFence = ARGV[1], ARGV[2] == '1', num(ARGV[3]), num(ARGV[4])
local commands = {}
for n = 1, num(ARGV[5]) do
  local k = ${SHARED_KEYS} + ${KEYS_PER_COMMAND} * (n - 1)
  commands[n] = { segment = ARGV[${HEAD_ARGS} + n],
    readyKey = KEYS[k + 1], slotsKey = KEYS[k + 2], workersKey = KEYS[k + 3], rankedKey = KEYS[k + 4] }
end
local keyBase, argBase = ${SHARED_KEYS} + ${KEYS_PER_COMMAND} * #commands, ${HEAD_ARGS} + #commands

local function memoized(parse)
  local cache = {}
  return function(text)
    local found = cache[text]
    if not found then
      found = parse(text)
      cache[text] = found
    end
    return found
  end
end

local function nextNumber(id, last, least)
  local next = math.max(num(last) + 1, least)
  if not (next <= ${MAX_EXACT_INTEGER}) then error('The record of the job ' .. id .. ' can be run no more: no number above those in it is exact', 0) end
  return next
end
local function jobKey(id) return base .. 'j/' .. id end
local function idOf(key) return string.sub(key, #base + 3) end
local function dueMember(id, command) return id .. ' ' .. command.segment end
local function forgetNeedless(segment)
  if redis.call('EXISTS', base .. 'w/' .. segment, base .. 'r/' .. segment) > 0 then return end
  if redis.call('SISMEMBER', pausedKey, segment) == 0 then redis.call('HDEL', commandsKey, segment) end
end
local function areTooManyKnown() return redis.call('HLEN', commandsKey) > ${MAX_KNOWN_COMMANDS} end
local function registerCommand(command, name)
  local isNew = redis.call('HSET', commandsKey, command.segment, name) == 1
  expire(commandsKey, ${PENDING_JOB_TTL})
  if not isNew or not areTooManyKnown() then return end
  for _, segment in ipairs(redis.call('HRANDFIELD', commandsKey, ${COMMAND_SAMPLE})) do
    if segment ~= command.segment then forgetNeedless(segment) end
  end
end
local tallies = {}
local function tally(field) tallies[field] = (tallies[field] or 0) + 1 end
local function writeTotals()
  for field, by in pairs(tallies) do
    local total = redis.pcall('HINCRBY', totalsKey, field, by)
    if type(total) == 'number' and (by - total) % 100 < by then expire(totalsKey, ${PENDING_JOB_TTL}) end
  end
end
local function removeFields(key, fields)
  for from = 1, #fields, 1000 do
    redis.call('HDEL', key, unpack(fields, from, math.min(from + 999, #fields)))
  end
end

local function addPayload(set, bytes)
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

${OUTBOX}`
}
