import { ID_LENGTH } from '../../kernel/ids.ts'

/**
 * KEYS    one record each (on a cluster: one)
 * ARGV    inbox, holder, highest fence seen, how many may park; then for each key: nonce.attempt, lease,
 *         extra: '' or `after parked flags trace` with flags 1 = refresh, 2 = no takeover
 * returns for each key one of
 *         { 'V' | 'E', fence, fresh, doomed, bytes } · { 'G', fence, takeover } ·
 *         { 'P', fence, left, after, trace, progress } · { 'X' } abandoned · { 'O' } overloaded · { '!', error }
 */
export const CLAIM: string = `
local inbox, holder, seen, cap = ARGV[1], ARGV[2], num(ARGV[3]), num(ARGV[4])

local function claim(key, attempt, lease, extra)
  local after, parked, flags, trace = 0, 0, 0, ''
  if extra ~= '' then
    local a, p, fl, tr = string.match(extra, '^(%d+) (%d+) (%d+) (.*)$')
    after, parked, flags, trace = num(a), num(p), num(fl), tr
  end
  local refresh, stay = flags % 2 == 1, flags >= 2
  local token = inbox .. attempt
  local park = '@' .. inbox .. string.sub(attempt, 1, ${ID_LENGTH})
  local r = redis.call('HMGET', key, 'o', 'f', 'u', 'v', 'vf', 'vu', 's', 'k', 'su', 'eu', 'd', park, 'n', 'c', 'g', 'l')
  local o, f, u = r[1], num(r[2]), num(r[3])
  if o == token then return { 'G', f, 0 } end

  local vf, vu, s, k, su, eu, d = num(r[5]), num(r[6]), num(r[7]), r[8], num(r[9]), num(r[10]), num(r[11])
  local mine = parked > 0 and s > after and s >= parked and su > now
  local value = (mine and k == 'v' and vf == s) or (not refresh and r[4] and vf > after and vu > now)
  local failure = (mine and k == 'e') or (not refresh and k == 'e' and s > after and eu > now)
  if mine and failure then value = false end
  if value then return { 'V', vf, math.max(0, vu - now), d >= vf and 1 or 0, r[4] } end
  if failure then return { 'E', s, math.max(0, eu - now), d >= s and 1 or 0, redis.call('HGET', key, 'e') or '' } end

  if o and u > now then
    if not r[12] then
      if num(r[13]) >= cap then return { 'O' } end
      redis.call('HSET', key, park, '', 'n', num(r[13]) + 1)
    end
    if refresh or d >= f then after = math.max(after, f) end
    return { 'P', f, u - now, after, r[14] or '', r[15] }
  end
  if o and parked > 0 and stay then return { 'X' } end

  local fence = math.max(f + 1, us, seen + 1)
  local gone = {}
  if r[12] then gone[#gone + 1] = park end
  if r[14] then gone[#gone + 1] = 'c' end
  if r[15] then gone[#gone + 1] = 'g' end
  remove(key, gone)
  local set = { 'o', token, 'f', int(fence), 'u', int(now + lease), 'l', int(lease), 'h', holder }
  if trace ~= '' then set[#set + 1] = 'c' set[#set + 1] = trace end
  if r[12] then set[#set + 1] = 'n' set[#set + 1] = num(r[13]) - 1 end
  redis.call('HSET', key, unpack(set))
  keep(key, last(vu, su, eu, now + lease, lease))
  return { 'G', fence, o and 1 or 0 }
end

local function at(i) return KEYS[i], ARGV[3 * i + 2], num(ARGV[3 * i + 3]), ARGV[3 * i + 4] end

if #KEYS == 1 then return { claim(at(1)) } end
local replies = {}
for i = 1, #KEYS do
  local ok, reply = pcall(claim, at(i))
  replies[i] = ok and reply or { '!' }
end
return replies
`
