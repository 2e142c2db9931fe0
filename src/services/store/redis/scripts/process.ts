import { ID_LENGTH } from '../../../../kernel/keys.ts'
import { SETTINGS_TTL } from '../../store.ts'
import { KEEP_AFTER_LEASE } from './prelude.ts'

/**
 * Reports the load of a process, and sends replies.
 *
 * ARGV    5 service  6 process  7 received  8 finished; for each process that gets replies: its inbox, a bundle of them
 */
export const REPORT: string = /* lua */ `
local process = ARGV[6]
local load = readLoad(process)
if load then
  raise(load, ARGV[7], ARGV[8])
  writeLoad(process, load)
  rank(process, load)
end
for n = 9, #ARGV, 2 do redis.pcall('PUBLISH', channels .. ARGV[n], ARGV[n + 1]) end
return 1
`

/**
 * Registers a process for services, or renews its leases. A service that fails does not hinder the others.
 *
 * ARGV    5 process; for each service: name, limit, lease, info, received, finished
 * returns for each service an empty string, or why it has failed
 */
export const REGISTER: string = /* lua */ `
local process, failures = ARGV[5], {}
local function keepAll(lease)
  for _, key in ipairs({ leasesKey, freeKey, loadsKey, infosKey }) do keep(key, num(lease) + ${KEEP_AFTER_LEASE}) end
end
local function register(limit, lease, info, received, finished)
  strikeExpired()
  local load = leaseLeft(process) and readLoad(process)
  local isNew = not load
  -- A process that may not publish could not reply.
  local problem = isNew and forbidden(channels .. '*', redis.pcall('PUBLISH', channels .. '-', ''))
  if problem then error(problem, 0) end
  load = load or { dealt = '0', finished = '0' }
  load.limit = limit
  raise(load, received, finished)
  redis.call('ZADD', leasesKey, now + num(lease), process)
  redis.call('HSET', infosKey, process, info)
  writeLoad(process, load)
  rank(process, load)
  keepAll(lease)
  keep(settingsKey, ${SETTINGS_TTL})
  problem = isNew and announce('u', cjson.encode(process) .. ',' .. cjson.encode(info))
  if problem then
    strike(process)
    error(problem, 0)
  end
end
for n = 1, (#ARGV - 5) / 6 do
  open(n, ARGV[6 * n])
  local isDone, problem = pcall(register, unpack(ARGV, 6 * n + 1, 6 * n + 5))
  failures[n] = isDone and '' or failureOf(problem)
  -- What it has written before must have an expiry.
  if not isDone then pcall(keepAll, ARGV[6 * n + 2]) end
end
return failures
`

/**
 * Strikes a process off services. A service that fails does not hinder the others.
 *
 * ARGV    5 process; for each service: name, message for the process, after the last call that was dealt to it
 * returns for each service an empty string, or why it has failed
 */
export const UNREGISTER: string = /* lua */ `
local process, failures, messages = ARGV[5], {}, {}
for n = 1, (#ARGV - 5) / 2 do
  open(n, ARGV[4 + 2 * n])
  local isDone, problem = pcall(function() if leaseLeft(process) then strike(process) end end)
  failures[n] = isDone and '' or failureOf(problem)
  messages[2 * n - 1], messages[2 * n] = string.sub(process, ${ID_LENGTH + 1}), ARGV[5 + 2 * n]
end
sendTo(string.sub(process, 1, ${ID_LENGTH}), messages)
return failures
`

/** ARGV    5 service  6 process  7 kind  8 more fields  9 body of a message for it */
export const MARK: string = /* lua */ `
local process = ARGV[6]
sendTo(string.sub(process, 1, ${ID_LENGTH}), { numbered(process, ARGV[7], readLoad(process) or { dealt = '0' }, ARGV[8]), ARGV[9] })
return 1
`

/**
 * ARGV    5 service  6 process
 * returns what is left of its lease, ms; L: it is over; U: there is no record of it
 */
export const CHECK: string = /* lua */ `
local process = ARGV[6]
for _, expired in ipairs(strikeExpired()) do
  if expired == process then return 'L' end
end
local left = leaseLeft(process)
return left and int(math.max(0, left)) or 'U'
`

/**
 * ARGV    5 service  6 message
 * returns the processes that were struck off
 */
export const PRUNE: string = /* lua */ `
local struck = strikeExpired()
for _, process in ipairs(redis.call('ZRANGE', leasesKey, 0, -1)) do
  if send(process, ARGV[6]) == 0 and not isCluster then
    strike(process)
    struck[#struck + 1] = process
  end
end
return struck
`

/** returns the number of processes whose lease holds */
export const COUNT: string = /* lua */ `
return redis.call('ZCOUNT', leasesKey, '(' .. int(now), '+inf')
`
