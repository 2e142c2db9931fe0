import { ID_LENGTH } from '../../kernel/ids.ts'
import { ANY_AGE } from '../store.ts'
import { HEADER_LENGTH, VALUE_HEADER } from './prelude.ts'

/**
 * The claim script begins here, with what most claims come to: a first, plain claim of a key whose result is fresh. It
 * is served before anything else is even defined. (One that is being refreshed goes the long way: the claim may be a
 * repeated one of the refresher.)
 *
 * KEYS    one record each (on a cluster: one)
 * ARGV    inbox, holder, highest fence seen, how many may park, lease; then for each key its claim: the nonce alone for
 *         a first, plain attempt, else `<nonce><attempt> lease after parked flags tolerance serve only
 *         trace`; flags 1 = refresh, 2 = no takeover, 4 = no pass
 * returns for each key three values in a row, without nesting, which is what costs most in a reply:
 *         a plain value with its header, nil, nil: not doomed, without tags, and not kept beyond its end
 *         'V' fence fresh doomed stale, value with its header, tags
 *         'U' fence doomed, bytes, tags: a value that is not kept
 *         'E' fence fresh doomed, bytes, tags, or offer with those in the place of progress
 *         'S' (what is offered will do), nil, offer
 *         'G' fence takeover, nil, offer
 *         'N' fence (go alone), nil, offer
 *         'P' fence left after, trace, progress or offer
 *         'X' abandoned; nil, offer
 *         'O' overloaded, 'R' refused, or '!' failed for this key; nil, nil
 *         an offer: { 'fence past left', value with its header, tags, progress }, or nil
 *         and then, once, the server's time in ms
 */
export const SERVE: string = `
local inbox = ARGV[1]
-- Whether a value is plain and fresh. What is fresh has not been invalidated.
local function serves(v)
  if not v or #v < ${HEADER_LENGTH} then return false end
  local flags, _, fresh = struct.unpack('${VALUE_HEADER}', v)
  return flags == 0 and fresh > now
end
local function read(key, nonce)
  return redis.call('HMGET', key, 'v', 'vf', 'vu', 'o', 'f', 'u', 's', 'k', 'su', 'eu', 'd', '@' .. inbox .. nonce, 'n', 'c', 'g',
    'vs', 'vt', 'pu', 'et')
end
local single
if #KEYS == 1 then
  local arg = ARGV[6]
  single = read(KEYS[1], string.sub(arg, 1, ${ID_LENGTH}))
  if #arg == ${ID_LENGTH} and not single[4] and serves(single[1]) then return { single[1], false, false, now } end
end
`

export const CLAIM: string = `
local holder, seen, cap = ARGV[2], num(ARGV[3]), num(ARGV[4])
local replies = {}

local function claim(key, arg, r)
  local nonce, attempt, lease, after, parked, flags, trace = arg, '1', num(ARGV[5]), 0, 0, 0, ''
  local tolerance, serve, only = ${ANY_AGE}, 0, 0
  if #arg > ${ID_LENGTH} then
    local a, l, af, pa, fl, to, se, on, tr =
      string.match(arg, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$', ${ID_LENGTH + 1})
    nonce, attempt, lease, after, parked, flags, trace = string.sub(arg, 1, ${ID_LENGTH}), a, num(l), num(af), num(pa), num(fl), tr
    tolerance, serve, only = num(to), num(se), num(on)
  end
  r = r or read(key, nonce)
  local refresh, stay, stubborn = flags % 2 == 1, flags % 4 >= 2, flags >= 4
  local token, park = inbox .. nonce .. '.' .. attempt, '@' .. inbox .. nonce
  local o, f, u = r[4], num(r[5]), num(r[6])
  local vf, vu, s, k, su, eu, d = num(r[2]), num(r[3]), num(r[7]), r[8], num(r[9]), num(r[10]), num(r[11])
  local vs, pu = num(r[16]), num(r[18])
  local past, offer = now - vu, nil
  if r[1] and not refresh and vf > after and past >= 0 and past < tolerance and vs > now then
    offer = { int(vf) .. ' ' .. int(past) .. ' ' .. int(vs - now), r[1], r[17] or '', r[15] or '' }
  end
  if o == token then
    redis.call('HSET', key, 'u', int(now + lease), 'l', int(lease))
    keep(key, last(vu, su, eu, now + lease, lease, vs, pu))
    return 'G ' .. int(f) .. ' 0', nil, offer
  end

  local mine = parked > 0 and s > after and s >= parked and su > now
  if mine and k == 'n' then
    return 'U ' .. int(s) .. (d >= s and ' 1' or ' 0'), redis.call('HGET', key, 'e'), r[19]
  end
  local failure = k == 'e' and (mine or (not refresh and s > after and eu > now))
  local value = (mine and k == 'v' and vf == s) or (not refresh and r[1] and vf > after and vu > now)
  if value and not (mine and failure) then
    local kept = int(math.max(0, vs - math.max(now, vu)))
    return 'V ' .. int(vf) .. ' ' .. int(math.max(0, vu - now)) .. (d >= vf and ' 1 ' or ' 0 ') .. kept, r[1] or redis.call('HGET', key, 'w'), r[17]
  end
  if failure then
    if offer then offer[4] = r[19] or '' end
    return 'E ' .. int(s) .. ' ' .. int(math.max(0, eu - now)) .. (d >= s and ' 1' or ' 0'), redis.call('HGET', key, 'e'), offer or r[19]
  end

  if o and u > now then
    if offer and parked == 0 and past < serve then return 'S', nil, offer end
    if not r[12] then
      if num(r[13]) >= cap then return 'O' end
      redis.call('HSET', key, park, '', 'n', num(r[13]) + 1)
    end
    if refresh or d >= f then after = math.max(after, f) end
    return 'P ' .. int(f) .. ' ' .. int(u - now) .. ' ' .. int(after), r[14], offer or r[15]
  end
  if only > 0 and (only ~= f or d >= only) then return 'R' end
  if o and parked > 0 and stay then return 'X', nil, offer end
  if pu > now and not stubborn then return 'N ' .. int(f), nil, offer end

  local fence = math.max(f + 1, us, seen + 1)
  local gone = o and { 'a' } or {}
  if r[12] then gone[#gone + 1] = park end
  if r[14] then gone[#gone + 1] = 'c' end
  if r[15] then gone[#gone + 1] = 'g' end
  remove(key, gone)
  local set = { 'o', token, 'f', int(fence), 'u', int(now + lease), 'l', int(lease), 'h', holder }
  if trace ~= '' then set[#set + 1] = 'c' set[#set + 1] = trace end
  if r[12] then set[#set + 1] = 'n' set[#set + 1] = num(r[13]) - 1 end
  redis.call('HSET', key, unpack(set))
  keep(key, last(vu, su, eu, now + lease, lease, vs, pu))
  return 'G ' .. int(fence) .. (o and ' 1' or ' 0'), nil, offer
end

local function put(i, head, bytes, more)
  replies[i] = head
  replies[i + 1] = bytes or false
  replies[i + 2] = more or false
end

if single then
  put(1, claim(KEYS[1], ARGV[6], single))
  replies[4] = now
  return replies
end
-- Many at once are mostly hits: for those, two fields tell all.
local hmget = redis.pcall
for i = 1, #KEYS do
  local arg, at = ARGV[i + 5], 3 * i - 2
  local r = hmget('HMGET', KEYS[i], 'v', 'o')
  if #arg == ${ID_LENGTH} and not r[2] and serves(r[1]) then
    put(at, r[1])
  elseif r.err then
    put(at, '!')
  else
    local done, head, bytes, more = pcall(claim, KEYS[i], arg)
    put(at, done and head or '!', bytes, more)
  end
end
replies[3 * #KEYS + 1] = now
return replies
`
