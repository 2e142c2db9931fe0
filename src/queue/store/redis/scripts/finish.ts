import { PENDING_JOB_TTL } from '../../store.ts'

/**
 * ARGV    largest message; then for each job
 *         `<command> <kind> <ttl> <linger> <delay> <keep> <age> <frees>`, kind v, e, r (once more) or h (given back),
 *         fence, worker, bytes
 * returns for each job 1, or 0 when the attempt was lost; then once the server's time in ms, or 0
 */
export const FINISH: string = `
local limit, first = num(ARGV[A + 1]), A + 1
local places = {}

local termsOf = once(function(head)
  local c, kind, ttl, linger, delay, keep, age, frees =
    string.match(head, '^(%d+) (%a) (%d+) (%d+) (%d+) (%d+) (%d+) (%d)$')
  return { command = commands[num(c)], kind = kind, ttl = num(ttl), linger = num(linger), delay = num(delay),
    keep = num(keep), age = num(age), frees = frees == '1', limit = limit }
end)

-- What is sent twice has the effect of once.
local function repeated(key, kind, fence)
  local h = redis.call('HMGET', key, 's', 'k', 'R', 'F')
  -- Given back, whoever has ended the job since.
  if kind == 'r' or kind == 'h' then return h[3] == fence and 1 or 0 end
  if h[4] == fence then return 0 end
  if h[1] == fence and h[2] == kind then return 1 end
  return 0
end

local function again(key, id, command, kind, delay, fence)
  redis.call('HDEL', key, 'o', 'l', 'g')
  redis.call('HSET', key, 'R', fence)
  if kind == 'r' then redis.pcall('HINCRBY', key, 'a', 1) end
  keepFor(key, delay + ${PENDING_JOB_TTL})
  if delay > 0 then return postpone(key, member(id, command), delay) end
  if kind == 'h' then
    putFirst(command, id)
  else
    line(command, id, redis.call('HGET', key, 'r'), false)
  end
  command.more = true
end

-- Read all, then write.
local replies, accepted, names, taken = {}, {}, {}, {}
for n = 1, #KEYS - K do
  local key, a = KEYS[K + n], first + 4 * (n - 1)
  local terms, fence, worker = termsOf(ARGV[a + 1]), ARGV[a + 2], ARGV[a + 3]
  local h = redis.pcall('HMGET', key, 'o', 'f', 'w', 'n', 'y', 'N')
  if h.err then
    replies[n] = h.err
  elseif h[1] ~= worker or h[2] ~= fence then
    replies[n] = repeated(key, terms.kind, fence)
  elseif taken[key] then
    -- Said twice in one call.
    replies[n] = taken[key] == terms.kind and 1 or 0
  else
    replies[n] = 1
    taken[key] = terms.kind
    names[#names + 1] = member(idOf(key), terms.command)
    accepted[#accepted + 1] = { key = key, terms = terms, worker = worker, bytes = ARGV[a + 4],
      f = fence, w = h[3], n = h[4], y = h[5], N = h[6] }
  end
end
if #names > 0 then redis.call('ZREM', T, unpack(names)) end
for _, one in ipairs(accepted) do
  local terms, key = one.terms, one.key
  local command, kind = terms.command, terms.kind
  if kind == 'r' or kind == 'h' then
    again(key, idOf(key), command, kind, terms.delay, one.f)
  elseif settle(key, one, terms, one.bytes) then
    follow(key, command, one)
    command.more = true
  end
  if terms.frees then
    local free = places[command]
    if free then free[#free + 1] = one.worker else places[command] = { one.worker } end
  end
end
for _, command in ipairs(commands) do
  if places[command] then free(command, places[command]) end
  if command.more then dispatch(command) end
end
sendMail()
deliver()
replies[#replies + 1] = now or 0
return replies
`
