import { Script, SERVER_CLOCK } from '../../../../kernel/redis/call.ts'
import { RECORDS, renewEach } from '../records.ts'

/**
 * The record of a persisted object in Redis, and its transitions. object-record.ts specifies them.
 *
 *   key  type  contents
 *   O    hash  version
 *              e          when the record expires
 *              "<name>"   a property: its name as JSON, its bytes
 */

/** Most values of one HSET: the stack of Lua is small. */
const MAX_VALUES = 1000

/**
 * KEYS    O
 * ARGV    1 version that it must have, or nothing  2 new version  3 ttl; for each property: its name as JSON, its bytes
 * returns 1; 0 if it has another version
 */
const SAVE = /* lua */ `
local objectKey, base, newVersion = KEYS[1], ARGV[1], ARGV[2]
local version, e = unpack(redis.call('HMGET', objectKey, 'version', 'e'))
e = num(e)
local isExpired = e <= now
local present = not isExpired and version or ''
-- It was sent twice.
if present == newVersion then return 1 end
if present ~= base then return 0 end

local old = isExpired and redis.call('HKEYS', objectKey) or {}
local expiresAt = math.max(isExpired and 0 or e, now + num(ARGV[3]))
redis.call('HSET', objectKey, 'version', newVersion, 'e', int(expiresAt))
extend(objectKey, e, expiresAt)
local saved = {}
for from = 4, #ARGV, ${MAX_VALUES} do
  redis.call('HSET', objectKey, unpack(ARGV, from, math.min(from + ${MAX_VALUES - 1}, #ARGV)))
end
-- Properties of the object that has expired. The key is never empty meanwhile: while a slot of a cluster is being migrated, a
-- key that a script has emptied cannot be used again.
for n = 4, #ARGV, 2 do saved[ARGV[n]] = true end
for _, field in ipairs(old) do
  if string.sub(field, 1, 1) == '"' and not saved[field] then redis.call('HDEL', objectKey, field) end
end
return 1
`

/** returns the names of all fields, and what they hold; nothing if there is no object */
const LOAD = /* lua */ `
return num(redis.call('HGET', KEYS[1], 'e')) > now and redis.call('HGETALL', KEYS[1]) or {}
`

/**
 * Keeps objects.
 *
 * KEYS    O of each
 * ARGV    of each: ttl
 */
const RENEW = /* lua */ `
local function renew(key, ttl)
  local e = num(redis.call('HGET', key, 'e'))
  local expiresAt = now + num(ttl)
  if e <= now or expiresAt <= e then return end
  redis.call('HSET', key, 'e', int(expiresAt))
  extend(key, e, expiresAt)
end
${renewEach(1)}`

/** The transitions of persisted objects, as the server runs them. */
export interface ObjectScripts {
  save: Script
  load: Script
  renew: Script
}

/** Builds the scripts. `clock` defines `us` and `now`: conformance tests replace it, so that time is an argument. */
export function buildObjectScripts(clock: string): ObjectScripts {
  const build = (script: string) => new Script([clock, RECORDS, script].join('\n'))
  return { save: build(SAVE), load: build(LOAD), renew: build(RENEW) }
}

/** The scripts on the server's time. */
export const objectScripts: ObjectScripts = buildObjectScripts(SERVER_CLOCK)
