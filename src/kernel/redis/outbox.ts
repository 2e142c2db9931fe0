import { FORMAT, ID_LENGTH } from '../keys.ts'

/** Messages to one process are joined up to so many bytes. */
const MAX_MESSAGE_BYTES = 256 * 1024

/**
 * Lua: sends messages to processes, in the format that subscription.ts defines. A script defines `channels`, the prefix of the
 * channels of inboxes, before it. An address is an inbox and a nonce, written one after the other.
 *
 *   publish(address, message)   puts a message into the outbox
 *   sendTo(inbox, messages)     publishes messages, each with its nonce, to a process; returns the number of receivers, nil
 *                               if nothing could be published; and the last error
 *   sendOutbox()                publishes the outbox, all messages to one process together
 */
export const OUTBOX: string = /* lua */ `
local outbox, inboxes = {}, {}
local function publish(address, message)
  local inbox = string.sub(address, 1, ${ID_LENGTH})
  if not outbox[inbox] then
    outbox[inbox] = {}
    inboxes[#inboxes + 1] = inbox
  end
  table.insert(outbox[inbox], string.sub(address, ${ID_LENGTH + 1}) .. message)
end
local function sendTo(inbox, messages)
  local from, receivers, failure = 1, nil, nil
  while from <= #messages do
    local to, size = from, #messages[from]
    while to < #messages and size + #messages[to + 1] <= ${MAX_MESSAGE_BYTES} do
      to = to + 1
      size = size + #messages[to]
    end
    local text = '${FORMAT}' .. messages[from]
    if to > from then
      local parts = { '${FORMAT}*' }
      -- Each length is an entry of its own: Lua hashes every string that a concatenation makes.
      for n = from, to do
        parts[#parts + 1] = #messages[n] .. ':'
        parts[#parts + 1] = messages[n]
      end
      text = table.concat(parts)
    end
    local reply = redis.pcall('PUBLISH', channels .. inbox, text)
    if type(reply) == 'number' then receivers = math.min(receivers or reply, reply) else failure = reply.err end
    from = to + 1
  end
  return receivers, failure
end
local function sendOutbox()
  for _, inbox in ipairs(inboxes) do sendTo(inbox, outbox[inbox]) end
end
`
