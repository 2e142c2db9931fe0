import { FORMAT, ID_LENGTH } from '../keys.ts'

/** Messages to one process are joined up to so many bytes. */
const MAX_MESSAGE_BYTES = 256 * 1024

/**
 * Lua: sends messages to a process, in the format that subscription.ts defines. A script defines `channels`, the prefix of the
 * channels of inboxes, before it.
 *
 *   sendTo(inbox, messages)     publishes messages, each as two entries: a first part, which begins with the nonce, and the
 *                               rest. Returns the number of receivers, nil if nothing could be published; and the last error
 */
export const SEND_TO: string = /* lua */ `
local function sendTo(inbox, messages)
  local from, receivers, failure = 1, nil, nil
  while from <= #messages do
    local to, size = from + 1, #messages[from] + #messages[from + 1]
    while to < #messages and size + #messages[to + 1] + #messages[to + 2] <= ${MAX_MESSAGE_BYTES} do
      to = to + 2
      size = size + #messages[to - 1] + #messages[to]
    end
    -- Long parts are joined once: Lua copies and hashes every string that a concatenation makes.
    local text
    if to == from + 1 then
      text = '${FORMAT}' .. messages[from] .. messages[to]
    else
      local parts = { '${FORMAT}*' }
      for n = from, to, 2 do
        parts[#parts + 1] = #messages[n] + #messages[n + 1] .. ':'
        parts[#parts + 1] = messages[n]
        parts[#parts + 1] = messages[n + 1]
      end
      text = table.concat(parts)
    end
    local reply = redis.pcall('PUBLISH', channels .. inbox, text)
    if type(reply) == 'number' then receivers = math.min(receivers or reply, reply) else failure = reply.err end
    from = to + 1
  end
  return receivers, failure
end
`

/**
 * Lua: collects messages to processes. An address is an inbox and a nonce, written one after the other.
 *
 *   publish(address, message)   puts a message into the outbox
 *   sendOutbox()                publishes the outbox, all messages to one process together
 */
export const OUTBOX: string = /* lua */ `
${SEND_TO}
local outbox, inboxes = {}, {}
local function publish(address, message)
  local inbox = string.sub(address, 1, ${ID_LENGTH})
  if not outbox[inbox] then
    outbox[inbox] = {}
    inboxes[#inboxes + 1] = inbox
  end
  local messages = outbox[inbox]
  messages[#messages + 1] = string.sub(address, ${ID_LENGTH + 1})
  messages[#messages + 1] = message
end
local function sendOutbox()
  for _, inbox in ipairs(inboxes) do sendTo(inbox, outbox[inbox]) end
end
`
