import { ID_LENGTH } from '../../../kernel/ids.ts'
import { FORMAT } from '../../../kernel/keys.ts'
import { ALWAYS, PIECE, type QueueTime } from './prelude.ts'

/**
 * One plain job, alone in its call, on a way of its own: it comes before the functions of the general way are made, which
 * takes longer than all that it does. What it cannot do, it leaves to that way, as if it had not been there.
 *
 * Arguments are those of SUBMIT and FINISH, for one command and one job.
 */

/** A new job that says nothing of itself, for a place that is free. */
export function submitOne(time: QueueTime): string {
  return `
local noPlace, returned = false, nil
if #KEYS == 11 and (ARGV[13] == '1 1 0 0' or ARGV[13] == '1 0 0 0') and ARGV[16] == '' and #ARGV[15] <= ${PIECE}
  and redis.call('EXISTS', KEYS[11]) == 0 then
  ${time.clock}
  local T, key = KEYS[1], KEYS[11]
  local id, lease = string.sub(key, #T + 2), int(now + num(ARGV[3]))
  local name = id .. ' ' .. ARGV[6]
  redis.call('ZADD', T, lease, name)
  local worker = redis.call('LPOP', KEYS[8])
  if worker and worker ~= 'P' then
    local y, fence = int(us), int(math.max(us, num(ARGV[4]) + 1))
    local role, who = 'c', ARGV[14]
    if ARGV[13] == '1 1 0 0' then role, who = 'w', ARGV[7] .. who end
    redis.call('HSET', key, 'y', y, 'm', ARGV[11], 'p', ARGV[15], role, who, 'o', worker, 'f', fence)
    local receivers = redis.pcall('PUBLISH', ARGV[1] .. string.sub(worker, 1, ${ID_LENGTH}),
      '${FORMAT}' .. string.sub(worker, ${ID_LENGTH + 1}) .. 'j ' .. id .. ' ' .. fence .. ' ' .. y .. ' 0 0 ' .. lease .. ' 0\\n' .. ARGV[15])
    if receivers ~= 0 or ARGV[2] == '1' then return { 'C ' .. y } end
    redis.call('HDEL', key, 'o')
    redis.call('LPUSH', KEYS[7], id)
    redis.call('LREM', KEYS[8], 0, worker)
    redis.call('HDEL', KEYS[9], worker)
    returned = y
  else
    if worker then redis.call('LPUSH', KEYS[8], worker) end
    noPlace = true
  end
  redis.call('ZREM', T, name)
end
`
}

/** A result that nobody but the first waits for, and that frees a place beside another. */
export function finishOne(time: QueueTime): string {
  return `
local finished = false
if #KEYS == 11 and #ARGV[11] <= num(ARGV[7]) then
  local ttl, linger = string.match(ARGV[8], '^1 v (%d+) (%d+) 0 0 0 1$')
  local T, key, fence, bytes = KEYS[1], KEYS[11], ARGV[9], ARGV[11]
  local h = ttl and redis.call('HMGET', key, 'o', 'f', 'w', 'n', 'y', 'N')
  if h and h[1] == ARGV[10] and h[2] == fence and not h[6] and (not h[4] or h[4] == '0') then
    local at, park = 0, h[3]
    -- Who submitted it is known by c when it is sent again.
    local c, nonce = 'w', ''
    if park and park ~= '' then c, nonce = 'c', string.sub(park, ${ID_LENGTH + 1}) end
    redis.call('ZREM', T, string.sub(key, #T + 2) .. ' ' .. ARGV[6])
    if num(ttl) >= num(linger) then
      redis.call('HSET', key, 'v', bytes, 'o', '', 'w', '', c, nonce, 'k', 'v', 's', fence, 'Y', h[5], 'vu', '${ALWAYS}')
    elseif ttl == '0' then
      redis.call('HSET', key, 'v', bytes, 'o', '', 'w', '', c, nonce, 'k', 'v', 's', fence, 'Y', h[5])
    else
      ${time.clock}
      at = now
      redis.call('HSET', key, 'v', bytes, 'o', '', 'w', '', c, nonce, 'k', 'v', 's', fence, 'Y', h[5], 'vu', int(now + num(ttl)))
    end
    keepFor(key, math.max(num(ttl), num(linger)))
    local places = redis.call('RPUSH', KEYS[8], ARGV[10])
    if park and park ~= '' then
      redis.pcall('PUBLISH', ARGV[1] .. string.sub(park, 1, ${ID_LENGTH}), '${FORMAT}' .. nonce .. 'v ' .. fence .. '\\n' .. bytes)
    end
    if places > 1 then return { 1, at } end
    finished = true
  end
end
`
}
