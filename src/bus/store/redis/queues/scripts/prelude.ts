/**
 * The record of a queue in Redis, and its transitions. queue-record.ts specifies them.
 *
 * All keys of a queue begin with the same hash tag. Times are ms since the epoch by the server's clock.
 *
 *   key   type    contents
 *   Q     hash    e: when it expires  d: no lease ends before this  m: maxsize  l: id of the last message  c: cursor
 *                 h: address of the exclusive consumer  i: id of the life  t: ttl  f: fence
 *                 a and an address: an attachment, `watches number first count` and of a consumer `/lease reliable exclusive`
 *                 and what it holds, ` from-to` for each range of ids
 *   S     stream  messages; the field is `u` (user) or `e` (end), and the key as JSON, if there is one
 *   L     zset    by the end of its lease: a and the address of an attachment, c and that of a consumer (+ ROLE)
 *   I     zset    ids, all with score 0: r id (returned), b length `:` key id (blocked)
 *   T     hash    k and a key -> id of the message whose turn it is
 *                 id -> how often the message was redelivered, and a blank and its key if it is its turn
 *   W     zset    who waits, by since when: c, r (+ ROLE), p (+ 2 ROLE), and the address
 *   M     hash    name, as JSON -> bytes
 *   C     string  `time life address`: the life that was closed, by whom, and until when it is remembered
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
 * What scripts share. A closure costs a script about as much as a command. So the parts of scripts that define functions
 * (SIGNALS, REMOVAL, LEAVING) stand where these are called, which in the frequent scripts is in a branch or function.
 *
 * KEYS    Q S L I T W M C of each queue; then what the script says
 * ARGV    1 prefix of inbox channels  2 '1' on a cluster; then what the script says
 *
 *   num(text)                the number that a text says; 0 if it says none
 *   int(number)              the digits of a whole number, without an exponent
 *   load(address)            reads the queue, and the attachment of the address, if one is given
 *   keep(key)                sets the expiry of a key
 *   sortable(id)             an id, given as digits, as it stands in I
 *   idsOf(prefix, count)     the first members of I with a prefix
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

local queueKey, streamKey, leasesKey, idsKey, turnsKey, waitingKey, metadataKey, closedKey = unpack(KEYS, 1, ${KEYS_PER_QUEUE})
local maxsize, expiresAt, last, cursor, holder, due, attachment
local function load(address)
  local fields = redis.call('HMGET', queueKey, 'e', 'd', 'm', 'l', 'c', 'h', 'a' .. (address or ''))
  expiresAt, due, maxsize, last, cursor = num(fields[1]), num(fields[2]), num(fields[3]), num(fields[4]), num(fields[5])
  holder, attachment = fields[6] or '', fields[7]
end
local function keep(key) redis.call('PEXPIRE', key, int(expiresAt - now + ${KEPT})) end

local function sortable(id) return string.char(96 + #id) .. id end
local function idsOf(prefix, count)
  return redis.call('ZRANGEBYLEX', idsKey, '[' .. prefix, '(' .. prefix .. '~', 'LIMIT', 0, count)
end
`

/** Lua: the number of messages that no consumer holds. */
export const WAITING_COUNT = "(redis.call('ZCARD', idsKey) + last + 1 - cursor)"

/**
 * Lua: what a consumer holds, as a list `from, to, from, to, …` of ranges of ids in order.
 *
 *   rangesOf(text)           of an attachment, or of an argument
 *   textOf(ranges)           as an attachment says it
 *   expand(ranges, limit)    the first ids, as digits
 */
export const RANGES: string = /* lua */ `
local function rangesOf(text)
  local ranges = {}
  for from, to in string.gmatch(text, '(%d+)%-(%d+)') do
    ranges[#ranges + 1], ranges[#ranges + 2] = num(from), num(to)
  end
  return ranges
end
local function textOf(ranges)
  local parts = {}
  for n = 1, #ranges, 2 do parts[#parts + 1] = string.format(' %.0f-%.0f', ranges[n], ranges[n + 1]) end
  return table.concat(parts)
end
local function expand(ranges, limit)
  local ids = {}
  for n = 1, #ranges, 2 do
    for id = ranges[n], ranges[n + 1] do
      if #ids == limit then return ids end
      ids[#ids + 1] = int(id)
    end
  end
  return ids
end
`
