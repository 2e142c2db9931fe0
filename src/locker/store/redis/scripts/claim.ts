import { ID_LENGTH } from '../../../../kernel/ids.ts'
import { MAX_EXACT_INTEGER } from '../../../../kernel/redis/fence-memory.ts'
import { ANY_STALENESS } from '../../store.ts'

/**
 * KEYS    one record each (on a cluster: one)
 * ARGV    inbox, holder, highest fence seen, how many may park, lease; then for each key its claim: the nonce alone for
 *         a first, plain attempt, else `<nonce><attempt> lease after parked flags tolerance serve only
 *         trace`; flags 1 = refresh, 2 = no takeover, 4 = no pass
 * returns for each key three values in a row, without nesting, which is what costs most in a reply:
 *         'V' fence fresh doomed stale, value with its header
 *         'U' fence doomed, bytes, tags: a value that is not kept
 *         'E' fence fresh doomed, bytes, tags, or offer with those in the place of progress
 *         'S' (what is offered will do), nil, offer
 *         'G' fence takeover, nil, offer
 *         'N' fence (go alone), nil, offer
 *         'P' fence left after, trace, progress or offer
 *         'X' abandoned; nil, offer
 *         'O' overloaded, 'R' refused, 'F' its fence can grow no more, or '!' failed for this key; nil, nil
 *         an offer: { 'fence past left', value with its header, progress or tags }, or nil
 *         and then, once, the server's time in ms
 */
export const CLAIM: string = `
local inbox, holder, seen, cap = ARGV[1], ARGV[2], num(ARGV[3]), num(ARGV[4])

local function claim(key, arg)
  local nonce, attempt, lease, after, parked, flags, trace = arg, '1', num(ARGV[5]), 0, 0, 0, ''
  local tolerance, serve, only = ${ANY_STALENESS}, 0, 0
  if #arg > ${ID_LENGTH} then
    local a, l, af, pa, fl, to, se, on, tr =
      string.match(arg, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$', ${ID_LENGTH + 1})
    nonce, attempt, lease, after, parked, flags, trace = string.sub(arg, 1, ${ID_LENGTH}), a, num(l), num(af), num(pa), num(fl), tr
    tolerance, serve, only = num(to), num(se), num(on)
  end
  local refresh, stay, stubborn = flags % 2 == 1, flags % 4 >= 2, flags >= 4
  local token, park = inbox .. nonce .. '.' .. attempt, '@' .. inbox .. nonce
  local v, vf, vu, vs, o, f, u, s, k, su, eu, et, d, pu, n, isParked, c, g = unpack(redis.call('HMGET', key,
    'v', 'vf', 'vu', 'vs', 'o', 'f', 'u', 's', 'k', 'su', 'eu', 'et', 'd', 'pu', 'n', park, 'c', 'g'))
  vf, vu, vs, f, u, s, su, eu, d, pu, n = num(vf), num(vu), num(vs), num(f), num(u), num(s), num(su), num(eu), num(d), num(pu), num(n)
  local past, offer = now - vu, nil
  if v and not refresh and vf > after and past >= 0 and past < tolerance and vs > now then
    offer = { int(vf) .. ' ' .. int(past) .. ' ' .. int(vs - now), v, g or '' }
  end
  if o == token then
    redis.call('HSET', key, 'u', int(now + lease), 'l', int(lease))
    keep(key, last(vu, su, eu, now + lease, lease, vs, pu))
    return 'G ' .. int(f) .. ' 0', nil, offer
  end

  local mine = parked > 0 and s > after and s >= parked and su > now
  if mine and k == 'n' then
    return 'U ' .. int(s) .. (d >= s and ' 1' or ' 0'), redis.call('HGET', key, 'e'), et
  end
  local failure = k == 'e' and (mine or (not refresh and s > after and eu > now))
  local value = (mine and k == 'v' and vf == s) or (not refresh and v and vf > after and vu > now)
  if value and not (mine and failure) then
    local kept = int(math.max(0, vs - math.max(now, vu)))
    return 'V ' .. int(vf) .. ' ' .. int(math.max(0, vu - now)) .. (d >= vf and ' 1 ' or ' 0 ') .. kept, v or redis.call('HGET', key, 'w')
  end
  if failure then
    if offer then offer[3] = et or '' end
    return 'E ' .. int(s) .. ' ' .. int(math.max(0, eu - now)) .. (d >= s and ' 1' or ' 0'), redis.call('HGET', key, 'e'), offer or et
  end

  if o and u > now then
    if offer and parked == 0 and past < serve then return 'S', nil, offer end
    if not isParked then
      if n >= cap then return 'O' end
      redis.call('HSET', key, park, '', 'n', n + 1)
    end
    if refresh or d >= f then after = math.max(after, f) end
    return 'P ' .. int(f) .. ' ' .. int(u - now) .. ' ' .. int(after), c, offer or g
  end
  if only > 0 and (only ~= f or d >= only) then return 'R' end
  if o and parked > 0 and stay then return 'X', nil, offer end
  if pu > now and not stubborn then return 'N ' .. int(f), nil, offer end

  local fence = math.max(f + 1, us, seen + 1)
  if not (fence <= ${MAX_EXACT_INTEGER}) then return 'F' end
  local gone = o and { 'a' } or {}
  if isParked then gone[#gone + 1] = park end
  if c then gone[#gone + 1] = 'c' end
  if g then gone[#gone + 1] = 'g' end
  remove(key, gone)
  local set = { 'o', token, 'f', int(fence), 'u', int(now + lease), 'l', int(lease), 'h', holder }
  if trace ~= '' then set[#set + 1] = 'c' set[#set + 1] = trace end
  if isParked then set[#set + 1] = 'n' set[#set + 1] = n - 1 end
  redis.call('HSET', key, unpack(set))
  keep(key, last(vu, su, eu, now + lease, lease, vs, pu))
  return 'G ' .. int(fence) .. (o and ' 1' or ' 0'), nil, offer
end

local replies = {}
for i, key in ipairs(KEYS) do
  local done, head, bytes, more = true
  -- Alone, it fails with what Redis says.
  if #KEYS == 1 then head, bytes, more = claim(key, ARGV[6])
  else done, head, bytes, more = pcall(claim, key, ARGV[i + 5]) end
  replies[3 * i - 2] = done and head or '!'
  replies[3 * i - 1] = done and bytes or false
  replies[3 * i] = done and more or false
end
replies[3 * #KEYS + 1] = now
return replies
`
