/**
 * ARGV    largest message; then for each job
 *         `<command> <kind> <fence> <ttl> <linger> <delay> <keep> <age> <frees>`, kind v, e, r (once more) or h (given
 *         back), worker, bytes
 * returns for each job 1, or 0 when the attempt was lost; then once the server's time in ms, or 0
 */
export const FINISH: string = `
local limit, first = num(ARGV[A + 1]), A + 1
local places = {}

local function finish(n)
  local key, a = KEYS[K + n], first + 3 * (n - 1)
  local c, kind, fence, ttl, linger, delay, keep, age, frees =
    string.match(ARGV[a + 1], '^(%d+) (%a) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d)$')
  local command, worker, id = commands[num(c)], ARGV[a + 2], idOf(key)
  local h = redis.call('HMGET', key, 'o', 'f', 's', 'k', 'w', 'n', 'y', 'N', 'a', 'r', 'R')
  local r = { f = h[2], w = h[5], n = h[6], y = h[7], N = h[8], r = h[10] }
  if h[3] == fence and h[4] == kind then return 1 end
  if h[11] == fence and (kind == 'r' or kind == 'h') then return 1 end
  if h[1] ~= worker or h[2] ~= fence then return 0 end

  redis.call('ZREM', T, member(id, command))
  if kind == 'v' or kind == 'e' then
    local over = { kind = kind, bytes = ARGV[a + 3], ttl = num(ttl), linger = num(linger), keep = num(keep), age = num(age), limit = limit }
    if settle(key, r, over) then
      follow(key, command, r)
      command.more = true
    end
  else
    redis.call('HDEL', key, 'o', 'l', 'g')
    if kind == 'r' then redis.call('HSET', key, 'R', fence, 'a', num(h[9]) + 1) else redis.call('HSET', key, 'R', fence) end
    if num(delay) > 0 then
      clock()
      redis.call('HSET', key, 'd', int(now + num(delay)))
      redis.call('ZADD', T, int(now + num(delay)), member(id, command))
      redis.call('ZADD', D, int(now + num(delay)), member(id, command))
    else
      if kind == 'h' then redis.call('LPUSH', command.w, id) else line(command, id, r.r, false) end
      command.more = true
    end
  end
  if frees == '1' then
    if not places[command] then places[command] = {} end
    table.insert(places[command], worker)
  end
  return 1
end

local replies = {}
for n = 1, #KEYS - K do
  local done, reply = pcall(finish, n)
  if not done then reply = type(reply) == 'table' and reply.err or tostring(reply) end
  replies[n] = reply
end
for _, command in ipairs(commands) do
  if places[command] then free(command, places[command]) end
  if command.more then dispatch(command) end
end
deliver()
sendMail()
replies[#replies + 1] = now or 0
return replies
`
