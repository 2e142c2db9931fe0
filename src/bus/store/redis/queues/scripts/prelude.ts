import { ID_LENGTH } from '../../../../../kernel/keys.ts'
import { OUTBOX } from '../../../../../kernel/redis/outbox.ts'

/**
 * The record of a queue in Redis, and its transitions. queue-record.ts specifies them.
 *
 * All keys of a queue begin with the same hash tag. Times are ms since the epoch by the server's clock.
 *
 *   key   type    contents
 *   Q     hash    i: id of the life  t: ttl  m: maxsize  e: when it expires  l: id of the last message  c: cursor
 *                 f: fence  h: address of the exclusive consumer
 *                 d: no lease ends before this
 *                 a and an address: an attachment, `watches number first count` and of a consumer `/lease reliable exclusive`
 *   S     stream  messages; the field is `u` (user) or `e` (end), and the key as JSON, if there is one
 *   L     zset    by the end of its lease: a and the address of an attachment, c and that of a consumer (+ ROLE)
 *   I     zset    ids, all with score 0: r id (returned), b length `:` key id (blocked), h address `/` id (held)
 *   T     hash    k and a key -> id of the message whose turn it is
 *                 id -> how often the message was redelivered, and a blank and its key if it is its turn
 *   W     zset    who waits, by since when: c, r (+ ROLE), p (+ 2 ROLE), and the address
 *   M     hash    name, as JSON -> bytes
 *   C     string  `time life`: the life that was closed, and until when it is remembered
 *
 * In I, each id has a letter before it for the number of its digits, so that ids sort by number. In a zset with two roles,
 * the score of the second begins at ROLE.
 *
 * Every key expires KEPT after the queue; C as it says. A script that creates a key sets its expiry in the next command. The
 * record is what Q says: the other keys may be missing.
 */

/** How much longer than the queue its keys are kept, ms: the field `e` decides, not the expiry of a key. */
export const KEPT = 60_000

/** KEYS of a queue: Q S L I T W M C. */
export const KEYS_PER_QUEUE = 8

/** Added to a score for each further role in a zset. More than any time in ms. */
export const ROLE: number = 2 ** 42

/** Later than the end of any lease. */
export const NEVER: number = 2 ** 53

/** Arguments of one command at most, unless each has two. */
export const CHUNK = 100

/**
 * What scripts share.
 *
 * KEYS    Q S L I T W M C of each queue; then what the script says
 * ARGV    1 prefix of inbox channels  2 '1' on a cluster; then what the script says
 *
 *   num(text)                the number that a text says; 0 if it says none
 *   int(number)              the digits of a whole number, without an exponent
 *   choose(n)                what follows is about the n-th queue of KEYS
 *   load(address)            reads the queue, and the attachment of the address, if one is given
 *   set(…)                   sets fields of Q
 *   keep(key)                sets the expiry of a key
 *   sortable(id)             an id, given as digits, as it stands in I
 *   idsOf(prefix, count)     the first members of I with a prefix
 *   countIds(prefix)
 *   waitingCount()           messages that no consumer holds
 *   send(address, letter)    returns whether the process listens
 *   sendAll(addresses, letter)
 *   wakeAll(role, letter)    tells all who wait in a role: 1 readers, 2 producers
 *   wakeConsumers(count)
 *   tellRoom()
 *   announceHolder()
 */
export const PRELUDE: string = /* lua */ `
local function num(text) return tonumber(text or '') or 0 end
local function int(number) return string.format('%.0f', number) end
local channels, isCluster = ARGV[1], ARGV[2] == '1'
-- While a slot is being migrated, a key that a script has emptied cannot be used again: the script would fail half-way.
local probe = isCluster and redis.pcall('EXISTS', KEYS[1] .. '-')
if type(probe) == 'table' and string.find(probe.err, 'non local', 1, true) then
  return redis.error_reply('TRYAGAIN The slot is being migrated')
end

local queueKey, streamKey, leasesKey, idsKey, turnsKey, waitingKey, metadataKey, closedKey
local function choose(n)
  queueKey, streamKey, leasesKey, idsKey, turnsKey, waitingKey, metadataKey, closedKey =
    unpack(KEYS, ${KEYS_PER_QUEUE} * (n - 1) + 1, ${KEYS_PER_QUEUE} * n)
end
choose(1)
local life, ttl, maxsize, expiresAt, last, cursor, fence, holder, due, attachment
local function load(address)
  local fields = redis.call('HMGET', queueKey, 'i', 't', 'm', 'e', 'l', 'c', 'f', 'h', 'd', 'a' .. (address or ''))
  life, holder, attachment = fields[1], fields[8] or '', fields[10]
  ttl, maxsize, expiresAt, last = num(fields[2]), num(fields[3]), num(fields[4]), num(fields[5])
  cursor, fence, due = num(fields[6]), num(fields[7]), num(fields[9])
end
local function set(...) redis.call('HSET', queueKey, ...) end
local function keep(key) redis.call('PEXPIRE', key, int(expiresAt - now + ${KEPT})) end

local function sortable(id) return string.char(96 + #id) .. id end
local function idsOf(prefix, count)
  return redis.call('ZRANGEBYLEX', idsKey, '[' .. prefix, '(' .. prefix .. '~', 'LIMIT', 0, count)
end
local function countIds(prefix) return redis.call('ZLEXCOUNT', idsKey, '[' .. prefix, '(' .. prefix .. '~') end
local function waitingCount() return redis.call('XLEN', streamKey) - countIds('h') end
${OUTBOX}
local function send(address, letter)
  local receivers = sendTo(string.sub(address, 1, ${ID_LENGTH}), { string.sub(address, ${ID_LENGTH + 1}) .. letter })
  return isCluster or (receivers or 0) > 0
end
local function sendAll(addresses, letter)
  for _, address in ipairs(addresses) do publish(address, letter) end
  sendOutbox()
  outbox, inboxes = {}, {}
end

-- Those who wait in a role, not more than a number, do not wait any more.
local function calledFrom(role, count)
  local from, to = int(role * ${ROLE}), '(' .. int((role + 1) * ${ROLE})
  local found = redis.call('ZRANGEBYSCORE', waitingKey, from, to, 'LIMIT', 0, count)
  if #found > 0 then redis.call('ZREM', waitingKey, unpack(found)) end
  for n, member in ipairs(found) do found[n] = string.sub(member, 2) end
  return found
end
local function wakeAll(role, letter)
  repeat
    local found = calledFrom(role, ${CHUNK})
    sendAll(found, letter)
  until #found < ${CHUNK}
end
local function wakeConsumers(count)
  if holder ~= '' then
    if count > 0 and redis.call('ZREM', waitingKey, 'c' .. holder) == 1 then send(holder, 'm') end
    return
  end
  while count > 0 do
    local found = calledFrom(0, math.min(count, ${CHUNK}))
    if #found == 0 then return end
    for _, address in ipairs(found) do
      if send(address, 'm') then count = count - 1 end
    end
  end
end
local function tellRoom()
  if maxsize > 0 and waitingCount() < maxsize then wakeAll(2, 'r') end
end
-- All attachments, by the end of their leases; or those that watch for the exclusive consumer.
local function attached(watching)
  local members = redis.call('ZRANGEBYSCORE', leasesKey, '-inf', '(${ROLE}')
  local found = {}
  for from = 1, #members, ${CHUNK} do
    local texts = watching and redis.call('HMGET', queueKey, unpack(members, from, math.min(#members, from + ${CHUNK - 1})))
    for n = from, math.min(#members, from + ${CHUNK - 1}) do
      if not watching or string.sub(texts[n - from + 1] or '', 1, 1) == '1' then
        found[#found + 1] = string.sub(members[n], 2)
      end
    end
  end
  return found
end
local function announceHolder() sendAll(attached(true), 'h') end
`
