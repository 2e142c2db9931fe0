import { MAX_SETTINGS, SETTINGS_TTL } from '../../store.ts'
import { KEYS_PER_SERVICE } from './prelude.ts'

/** ARGV    1 setting */
export const READ_SETTING: string = /* lua */ `return redis.call('HGET', KEYS[${KEYS_PER_SERVICE}], ARGV[1])`

/**
 * ARGV    5 service  6 setting  7 its bytes; none: it is removed
 * returns 0 if there are too many
 */
export const WRITE_SETTING: string = /* lua */ `
local setting, bytes = ARGV[6], ARGV[7]
if not bytes then
  redis.call('HDEL', settingsKey, setting)
elseif redis.call('HEXISTS', settingsKey, setting) == 0 and redis.call('HLEN', settingsKey) >= ${MAX_SETTINGS} then
  return 0
else
  redis.call('HSET', settingsKey, setting, bytes)
  keep(settingsKey, ${SETTINGS_TTL})
end
announce('s', setting)
return 1
`
