import { FORMAT, ID_LENGTH } from '../../../../kernel/keys.ts'
import { Script, SERVER_CLOCK } from '../../../../kernel/redis/call.ts'
import { MIN_PRUNED, PUBLISHER_TTL, TOPIC_TTL } from '../../topic-record.ts'
import { RECORDS, renewEach } from '../records.ts'

/**
 * The record of a topic in Redis, and its transitions. topic-record.ts specifies them.
 *
 *   key  type  contents
 *   T    hash  life, last      of the life: its id, and the number of its last message
 *              terms           `keep retain ttl`
 *              until           until when the messages of K are kept; 0: there are none
 *              e               when the record expires
 *              b<publisher>    `number last until` of the last batch of a publisher
 *              prune           with more fields, the publishers that need not be remembered are removed
 *   K    list  the kept messages; meaningless after `until`
 *
 * Publishers are fields and not keys of their own: so they cost no further command. K is replaced, and never removed: while a
 * slot of a cluster is being migrated, a key that a script has emptied cannot be used again.
 */

/** Most values of one RPUSH: the stack of Lua is small. */
const MAX_VALUES = 1000

/**
 * What scripts share.
 *
 *   open(key, life, terms, publisher)   reads the record of a topic, or begins a new life, and adds the terms to it
 *   write(field, text)                  writes it, and one more field
 *   removePublishers(time)              removes those that are remembered until then at most
 *
 *   life, last, terms, keptUntil, e     of the record
 *   isKept                              whether K is meaningful
 *   batch                               what is remembered of the publisher
 */
const TOPICS = /* lua */ `
local topicKey, life, last, terms, keptUntil, e, batch
local isNew, isChanged, isKept, writtenE

local TERMS = '^(%d+) ([01]) (%d+)$'
local function larger(one, other)
  local keep, retain, ttl = string.match(one, TERMS)
  local otherKeep, otherRetain, otherTtl = string.match(other, TERMS)
  if not keep then return other end
  local function max(one, other) return int(math.max(num(one), num(other))) end
  return max(keep, otherKeep) .. ' ' .. max(retain, otherRetain) .. ' ' .. max(ttl, otherTtl)
end

local function open(key, newLife, given, publisher)
  topicKey = key
  life, last, terms, keptUntil, e, batch =
    unpack(redis.call('HMGET', key, 'life', 'last', 'terms', 'until', 'e', 'b' .. publisher))
  writtenE = num(e)
  isNew = not life or #life ~= ${ID_LENGTH} or writtenE <= now
  isChanged = isNew or terms ~= given
  if isNew then
    life, last, terms, keptUntil, e, batch = newLife, 0, given, 0, 0, false
  else
    last, keptUntil, e = num(last), num(keptUntil), writtenE
    if isChanged then terms = larger(terms or '', given) end
  end
  isKept = keptUntil > now
  -- Messages that were seen to have ended do not come back when the server's clock goes back.
  if not isKept and keptUntil > 0 then keptUntil, isChanged = 0, true end
  e = math.max(e, now + ${TOPIC_TTL})
end

local function removePublishers(time)
  local fields = redis.call('HGETALL', topicKey)
  for n = 1, #fields, 2 do
    if string.sub(fields[n], 1, 1) == 'b' and num(string.match(fields[n + 1], '%d+$')) <= time then
      redis.call('HDEL', topicKey, fields[n])
    end
  end
end

local function write(...)
  -- They have published in another life.
  if isNew then removePublishers(math.huge) end
  redis.call('HSET', topicKey, 'last', int(last), 'e', int(e), ...)
  extend(topicKey, writtenE, e)
  if isChanged then redis.call('HSET', topicKey, 'life', life, 'terms', terms, 'until', int(keptUntil)) end
end
`

/**
 * Publishes a batch of messages. One that has been published is not published again.
 *
 * KEYS    T K
 * ARGV    1 new life  2 terms  3 publisher  4 number of the batch  5 channel; for each bundle: its number of messages, its bytes
 * returns the number of the last message
 */
const PUBLISH = /* lua */ `
local keptKey = KEYS[2]
local publisher, number, channel = unpack(ARGV, 3, 5)
open(KEYS[1], ARGV[1], ARGV[2], publisher)

local lastNumber, lastBefore, rememberedUntil = string.match(batch or '', '^(%d+) (%d+) (%d+)$')
if lastNumber and num(rememberedUntil) > now and num(number) <= num(lastNumber) then
  write()
  return num(lastBefore)
end

local count = 0
for n = 6, #ARGV, 2 do count = count + num(ARGV[n]) end
local first = last + 1
last = last + count

-- The last messages of all bundles.
local function lastMessages(limit)
  local left, messages = count, {}
  for n = 7, #ARGV, 2 do
    local bundle, at = ARGV[n], 1
    while at <= #bundle do
      local _, colon, length = string.find(bundle, '^(%d+):', at)
      at = colon + 1 + num(length)
      if left <= limit then messages[#messages + 1] = string.sub(bundle, colon + 1, at - 1) end
      left = left - 1
    end
  end
  return messages
end
local function keep(limit, ttl)
  local messages = lastMessages(limit)
  local keptBefore = isKept and keptUntil or 0
  keptUntil = now + ttl
  for from = 1, #messages, ${MAX_VALUES} do
    local to = math.min(from + ${MAX_VALUES - 1}, #messages)
    local length = redis.call('RPUSH', keptKey, unpack(messages, from, to))
    -- The key may have been removed by hand.
    extend(keptKey, length == to and 0 or keptBefore, keptUntil)
  end
  redis.call('LTRIM', keptKey, -(isKept and limit or #messages), -1)
  e, isChanged = math.max(e, keptUntil), true
end
if string.sub(terms, 1, 4) ~= '0 0 ' then
  local limit, retain, ttl = string.match(terms, TERMS)
  keep(math.max(num(limit), num(retain)), num(ttl))
end

write('b' .. publisher, number .. ' ' .. int(last) .. ' ' .. int(now + ${PUBLISHER_TTL}))
if not batch and redis.call('HLEN', topicKey) > math.max(${MIN_PRUNED}, num(redis.call('HGET', topicKey, 'prune'))) then
  removePublishers(now)
  -- The work is in proportion to the publishers that have come.
  redis.call('HSET', topicKey, 'prune', 2 * redis.call('HLEN', topicKey))
end
for n = 6, #ARGV, 2 do
  redis.call('PUBLISH', channel, '${FORMAT}' .. life .. ' ' .. int(first) .. '\\n' .. ARGV[n + 1])
  first = first + num(ARGV[n])
end
return last
`

/**
 * What a subscriber has missed.
 *
 * KEYS    T K
 * ARGV    1 new life  2 terms  3 life that the subscriber knows, or nothing  4 number of the last message that it knows
 * returns life, number of the last message, messages
 */
const RESUME = /* lua */ `
open(KEYS[1], ARGV[1], ARGV[2], '')
local missed = last
if ARGV[3] == '' then
  missed = string.match(terms, ' 1 ') and 1 or 0
elseif ARGV[3] == life then
  missed = last - num(ARGV[4])
end
local messages = isKept and missed > 0 and redis.call('LRANGE', KEYS[2], int(-missed), -1) or {}
write()
return { life, last, messages }
`

/**
 * Keeps the records of topics.
 *
 * KEYS    T of each
 * ARGV    of each: new life, terms
 */
const RENEW = /* lua */ `
local function renew(key, newLife, given)
  open(key, newLife, given, '')
  write()
end
${renewEach(2)}`

/** The transitions of topics, as the server runs them. */
export interface TopicScripts {
  publish: Script
  resume: Script
  renew: Script
}

/** Builds the scripts. `clock` defines `us` and `now`: conformance tests replace it, so that time is an argument. */
export function buildTopicScripts(clock: string): TopicScripts {
  const build = (script: string) => new Script([clock, RECORDS, TOPICS, script].join('\n'))
  return { publish: build(PUBLISH), resume: build(RESUME), renew: build(RENEW) }
}

/** The scripts on the server's time. */
export const topicScripts: TopicScripts = buildTopicScripts(SERVER_CLOCK)
