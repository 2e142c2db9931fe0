import { ID_LENGTH } from '../../../kernel/ids.ts'
import { FORMAT } from '../../../kernel/redis/keys.ts'
import { Script } from '../../../kernel/redis/script.ts'
import { MESSAGE_LIMIT } from '../../store/store.ts'
import { LOG_GRACE, READ_BYTES, READ_CHUNKS } from './log-store.ts'

const HELPERS = `
local key = KEYS[1]
local function int(x) return string.format('%.0f', x) end
local function number(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function keep(ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, int(ms)) end
end
-- Names of those who follow. The name comes first, or after the word for it.
local function followers()
  local found, groups = {}, redis.pcall('XINFO', 'GROUPS', key)
  if groups.err then return found end
  for _, group in ipairs(groups) do found[#found + 1] = group[2] end
  return found
end`

/**
 * KEYS    the log
 * ARGV    from, first that is to be kept (0: all), keep (ms), prefix of inbox channels, '1' on a cluster, chunks …
 * returns { 1 kept or 0, followers }
 */
const APPEND = `${HELPERS}
local from, first, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
local length = last and number(last) or 0
if length < from then return { 0, 0 } end
local found = followers()
local sizes, bytes = {}, 0
for i = 6, #ARGV do
  local n = from + i - 5
  if n > length then redis.call('XADD', key, int(n), 'c', ARGV[i]) end
  sizes[#sizes + 1] = #ARGV[i]
  bytes = bytes + #ARGV[i]
end
if first > 0 then redis.call('XTRIM', key, 'MINID', '=', int(first + 1)) end
keep(kept)
local message
if bytes <= ${MESSAGE_LIMIT} then
  message = 'c ' .. int(from) .. ' ' .. table.concat(sizes, ' ') .. '\\n' .. table.concat(ARGV, '', 6)
else
  message = 'm ' .. int(from + #sizes)
end
local gone = 0
for _, park in ipairs(found) do
  local inbox, nonce = string.sub(park, 1, ${ID_LENGTH}), string.sub(park, ${ID_LENGTH + 1})
  local heard = redis.pcall('PUBLISH', ARGV[4] .. inbox, '${FORMAT}' .. nonce .. message)
  -- Receivers are not counted across the nodes of a cluster.
  if heard == 0 and ARGV[5] ~= '1' then
    redis.call('XGROUP', 'DESTROY', key, park)
    gone = gone + 1
  end
end
return { 1, #found - gone }
`

/**
 * KEYS    the log
 * ARGV    from, inbox and nonce of who follows or ''
 * returns { 0 read, 1 read and there is more, 2 trimmed or 3 gone; chunks … }
 */
const READ = `${HELPERS}
local from, park = tonumber(ARGV[1]), ARGV[2]
if redis.call('EXISTS', key) == 0 and (from > 0 or park == '') then return { 3 } end
local reply, bytes, more = { 0 }, 0, true
while more do
  local page = redis.call('XRANGE', key, int(from + #reply), '+', 'COUNT', 16)
  more = #page == 16
  for _, entry in ipairs(page) do
    if number(entry) ~= from + #reply then return { 2 } end
    local chunk = entry[2][2]
    if #reply > ${READ_CHUNKS} or (#reply > 1 and bytes + #chunk > ${READ_BYTES}) then
      reply[1], more = 1, false
      break
    end
    bytes = bytes + #chunk
    reply[#reply + 1] = chunk
  end
end
-- Out of memory, or there already: what was read is worth as much.
if park ~= '' then redis.pcall('XGROUP', 'CREATE', key, park, '$', 'MKSTREAM') end
keep(${LOG_GRACE})
return reply
`

/**
 * KEYS    the log
 * ARGV    ms
 * returns { 1 kept or 0, followers }
 */
const KEEP = `${HELPERS}
if redis.call('EXISTS', key) == 0 then return { 0, 0 } end
keep(tonumber(ARGV[1]))
return { 1, #followers() }
`

/**
 * KEYS    the log
 * ARGV    '1' even if it is followed
 * returns 1 gone or 0
 */
const FORGET = `${HELPERS}
if ARGV[1] ~= '1' and #followers() > 0 then return 0 end
redis.call('UNLINK', key)
return 1
`

/**
 * KEYS    the log
 * ARGV    inbox and nonce of who follows
 * returns 1
 */
const UNFOLLOW = `
redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
return 1
`

/** What is done to a log, as the server runs it. */
export const logScripts: Record<'append' | 'read' | 'keep' | 'forget' | 'unfollow', Script> = {
  append: new Script(APPEND),
  read: new Script(READ),
  keep: new Script(KEEP),
  forget: new Script(FORGET),
  unfollow: new Script(UNFOLLOW),
}
