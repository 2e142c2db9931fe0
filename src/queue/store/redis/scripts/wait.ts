import { ID_LENGTH } from '../../../../kernel/keys.ts'

/**
 * ARGV    inbox, how many may park; then for each job `<generation>`, nonce or ''
 * returns for each job two values: 'P' pending; '-' gone; 'V', 'E' or 'X' and the fence, and the bytes
 */
export const QUERY_OUTCOMES: string = `
local inbox, cap, replies = ARGV[A + 1], num(ARGV[A + 2]), {}
for n = 1, #KEYS - K do
  local key, a = KEYS[K + n], A + 2 + 2 * (n - 1)
  local generation, nonce = num(ARGV[a + 1]), ARGV[a + 2]
  local park = inbox .. nonce
  -- A record that cannot be read is not there, and one that cannot be written is looked at again later.
  local r = redis.pcall('HMGET', key, 'y', 'Y', 'k', 's', 'w', '@' .. park, 'n', 'N')
  local status, bytes = '-', false
  if r[3] and num(r[2]) >= generation then
    status = string.upper(r[3]) .. ' ' .. int(num(r[4]))
    bytes = r[3] ~= 'x' and redis.call('HGET', key, r[3])
  elseif r[1] and (num(r[1]) >= generation or num(r[8]) >= generation) then
    status = 'P'
    if nonce ~= '' and r[5] ~= park and not r[6] then
      if num(r[7]) < cap then redis.pcall('HSET', key, '@' .. park, int(generation), 'n', num(r[7]) + 1) end
    end
  end
  replies[2 * n - 1] = status
  replies[2 * n] = bytes
end
return replies
`

/**
 * Ends a job, or takes one who waits off its record, and then ends it if nobody is left and its submission asked for that.
 *
 * ARGV    park that leaves or '', kind (e or x), bytes, linger, '1' only if unwanted, largest message
 * returns 1 when it was ended
 */
export const TERMINATE: string = `
local key, command = KEYS[K + 1], commands[1]
local id, leaving, kind, linger = idOf(key), ARGV[A + 1], ARGV[A + 2], num(ARGV[A + 4])
local h = redis.call('HMGET', key, 'y', 'Y', 'o', 'f', 'd', 'w', 'n', 'N', 'r', 'u', '@' .. leaving, 'k')
if not h[1] then return 0 end
local r = { y = h[1], f = h[4], w = h[6], n = num(h[7]), N = h[8], r = h[9] }
if leaving ~= '' then
  if r.w == leaving then
    redis.call('HDEL', key, 'w')
    redis.call('HSET', key, 'c', string.sub(leaving, ${ID_LENGTH + 1}))
    r.w = ''
  elseif h[11] then
    r.n = r.n - 1
    redis.call('HDEL', key, '@' .. leaving)
    redis.call('HSET', key, 'n', r.n)
  else
    return 0
  end
end
if ARGV[A + 5] == '1' and (not h[10] or r.n > 0 or (r.w and r.w ~= '')) then return 0 end
local name = member(id, command)
if num(h[2]) >= num(h[1]) then
  if kind ~= 'x' or h[12] == 'x' then return 0 end
  redis.call('ZREM', X, id)
  redis.call('ZREM', C, id)
  redis.call('HDEL', key, 'v', 'e', 'L')
  redis.call('HSET', key, 'k', 'x', 'vu', '0', 'eu', '0')
  keepFor(key, linger)
  return 1
end
redis.call('ZREM', T, name)
if h[5] then redis.call('ZREM', D, name) end
local worker = h[3] and h[3] ~= '' and h[3]
if not worker then
  redis.call('LREM', command.w, 1, id)
  if h[9] and redis.call('ZREM', command.z, string.match(h[9], ' (.*)$') .. id) == 1 then
    redis.call('LREM', command.w, 1, '!')
  end
end
endJob(key, r, kind, ARGV[A + 3], linger, num(ARGV[A + 6]))
if worker then post(worker, 'c ' .. id .. ' ' .. int(num(h[4]))) end
sendMail()
return 1
`
