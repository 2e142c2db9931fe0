import { FORMAT, ID_LENGTH } from '../../../../kernel/keys.ts'
import { SEND_TO } from '../../../../kernel/redis/outbox.ts'
import { LOAD_STEP, MAX_STRUCK } from '../../service-record.ts'

/**
 * The record of a service in Redis, and its transitions. service-record.ts specifies them.
 *
 * All keys of a service begin with the same hash tag. Times are ms since the epoch by the server's clock.
 *
 *   key       type    contents                                                     expires
 *   L         zset    the address of each process, by the end of its lease         KEEP_AFTER_LEASE after the last lease
 *   F         zset    those that have room, by load * LOAD_STEP + the time of its change  the same
 *   P         hash    address -> `dealt finished limit`; the limit -1 is none      the same
 *   I         hash    address -> what `up` and `down` announce                     the same
 *   V         hash    setting, as JSON -> its bytes                                SETTINGS_TTL after a registration or write
 *   r/id/n    string  `number LF reply` of the last batch of calls that the        REPLY_TTL
 *                     process `id` sent with the slot n
 *
 * A process is in L, P and I, or in none of them.
 */

/** How long a record is kept after its last lease, ms: until then `down` can be announced. */
export const KEEP_AFTER_LEASE: number = 60 * 60_000

/** An expiry is extended by so much more, so that it need not be extended each time, ms. */
const EXPIRY_STEP = 60 * 60_000

/** KEYS of a service: L F P I V. */
export const KEYS_PER_SERVICE = 5

/**
 * What scripts share.
 *
 * KEYS    L F P I V of each service; then what the script says
 * ARGV    1 prefix of inbox channels  2 '1' on a cluster  3 broadcast channel  4 prefix of announcements
 *         then what the script says
 *
 *   num(text)                     the number that a text says; 0 if it says none
 *   int(number)                   the digits of a whole number, without an exponent
 *   failureOf(problem)            the text of what pcall has caught
 *   us, now                       µs and ms since the epoch, by the server's clock
 *   open(n, name)                 what follows is about the n-th service of KEYS, whose name is given as JSON
 *   keep(key, ms)                 keeps a key for at least so long
 *   forbidden(channel, reply)     why this user may not publish there, by the reply to PUBLISH; nil if it may
 *   announce(letter, values)      see wire.ts; the values are JSON. Returns why this user may not
 *   readLoad(process)             the load of a process; nil if there is none, or it was written by hand. Its counts are digits:
 *                                 they are mostly written as they were read, and numbers are slow to format
 *   writeLoad(process, load)
 *   rank(process, load)           puts a process into F or out of it
 *   raise(load, received, finished)   raises the counts of a load to those that its process reports; they never fall
 *   numbered(process, kind, load, rest)   the head of a message with the number of calls as first field, behind the nonce
 *   send(process, message)        returns the number of receivers
 */
export const PRELUDE: string = /* lua */ `
local function num(text) return tonumber(text or '') or 0 end
local function int(number) return string.format('%.0f', number) end
local function failureOf(problem) return type(problem) == 'table' and problem.err or problem end
-- While a slot is being migrated, a key that a script has emptied cannot be used again: the script would fail half-way.
local probe = ARGV[2] == '1' and redis.pcall('EXISTS', KEYS[1] .. '-')
if type(probe) == 'table' and string.find(probe.err, 'non local', 1, true) then
  return redis.error_reply('TRYAGAIN The slot is being migrated')
end

local channels, isCluster, broadcastChannel, announced = ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[4]
local leasesKey, freeKey, loadsKey, infosKey, settingsKey, service
local function open(n, name)
  leasesKey, freeKey, loadsKey, infosKey, settingsKey =
    unpack(KEYS, ${KEYS_PER_SERVICE} * (n - 1) + 1, ${KEYS_PER_SERVICE} * n)
  service = name
end
${SEND_TO}
local function send(process, message)
  return sendTo(string.sub(process, 1, ${ID_LENGTH}), { string.sub(process, ${ID_LENGTH + 1}), message })
end
local function forbidden(channel, reply)
  return type(reply) == 'table' and reply.err and 'PUBLISH to ' .. channel .. ': ' .. reply.err or nil
end
local function announce(letter, values)
  local reply = redis.pcall('PUBLISH', broadcastChannel, '${FORMAT}s' .. letter .. ' ' .. announced .. ' [' .. service .. ',' .. values .. ']')
  return forbidden(broadcastChannel, reply)
end

local function keep(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, int(ms + ${EXPIRY_STEP})) end
end

local function readLoad(process)
  local text = redis.call('HGET', loadsKey, process)
  local dealt, finished, limit = string.match(text or '', '^(%d+) (%d+) (-?%d+)$')
  return dealt and { dealt = dealt, finished = finished, limit = limit }
end
local function writeLoad(process, load)
  redis.call('HSET', loadsKey, process, load.dealt .. ' ' .. load.finished .. ' ' .. load.limit)
end
local function rank(process, load)
  local running = math.max(0, load.dealt - load.finished)
  local limit = num(load.limit)
  if limit >= 0 and running >= limit then
    redis.call('ZREM', freeKey, process)
  elseif redis.call('ZADD', freeKey, running * ${LOAD_STEP} + us % ${LOAD_STEP}, process) == 1 then
    -- The key may be new.
    keep(freeKey, math.max(redis.call('PTTL', leasesKey), ${KEEP_AFTER_LEASE}))
  end
end
local function raise(load, received, finished)
  if num(received) > num(load.dealt) then load.dealt = received end
  if num(finished) > num(load.finished) then load.finished = finished end
end
local function numbered(process, kind, load, rest)
  return string.sub(process, ${ID_LENGTH + 1}) .. kind .. ' ' .. load.dealt .. rest .. '\\n'
end
`

/** Opens the one service of a script, whose name is ARGV 5. */
export const ONE_SERVICE = 'open(1, ARGV[5])'

/**
 * What strikes off processes.
 *
 *   strike(process)     removes a process and announces that
 *   strikeExpired()     strikes off processes whose lease is over; returns them
 *   leaseLeft(process)  nil if there is no record of it
 */
export const LEASES: string = /* lua */ `
local function strike(process)
  local info = redis.call('HGET', infosKey, process) or ''
  for _, key in ipairs({ leasesKey, freeKey }) do redis.call('ZREM', key, process) end
  for _, key in ipairs({ loadsKey, infosKey }) do redis.call('HDEL', key, process) end
  announce('d', cjson.encode(process) .. ',' .. cjson.encode(info))
end
local function strikeExpired()
  local expired = redis.call('ZRANGEBYSCORE', leasesKey, '-inf', now, 'LIMIT', 0, ${MAX_STRUCK})
  for _, process in ipairs(expired) do strike(process) end
  return expired
end
local function leaseLeft(process)
  local leaseEnd = redis.call('ZSCORE', leasesKey, process)
  return leaseEnd and num(leaseEnd) - now
end
`
