import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/fence-memory.ts'
import { FORMAT } from '../../../../kernel/redis/keys.ts'

/**
 * KEYS    tags
 * ARGV    how long each is to have an epoch at least, ms; 0: as it is
 * returns the epoch of each, or false
 */
export const EPOCHS: string = `
local epochs, keep = {}, num(ARGV[1])
for i, key in ipairs(KEYS) do epochs[i] = redis.call('GET', key) end
if keep == 0 then return epochs end
for i, key in ipairs(KEYS) do
  if not epochs[i] then
    epochs[i] = int(us)
    redis.call('SET', key, epochs[i], 'PX', int(keep))
  elseif redis.call('PTTL', key) < keep then
    redis.call('PEXPIRE', key, int(keep))
  end
end
return epochs
`

/**
 * What has no epoch matches nothing: there is nothing to begin then.
 * KEYS    the tag
 * ARGV    broadcast channel, name of the tag as processes know it
 * returns 1
 */
export const INVALIDATE_TAG: string = `
local key = KEYS[1]
local known = redis.call('GET', key)
local epoch = math.max(num(known) + 1, us)
if not (epoch <= ${MAX_EXACT_INTEGER}) then return redis.error_reply('ERR The epoch of the tag can grow no more: delete ' .. key) end
epoch = int(epoch)
if known then redis.call('SET', key, epoch, 'KEEPTTL') end
-- Unheard, it would leave the caches of other processes as they are: then it has failed, and the caller must know.
local told = redis.pcall('PUBLISH', ARGV[1], '${FORMAT}t' .. epoch .. ' ' .. ARGV[2])
if type(told) == 'table' and told.err then return told end
return 1
`
