import type { Clock } from '../time.ts'
import type { CommandSender, Request } from './call.ts'

// Scripts that take effect once, even if they are sent twice: the reply is kept in a key, and the repetition returns it.

/** How long the reply to a batch is kept for its repetition, ms. */
const REPLY_TTL = 60_000

/** Most bytes of `number LF` before a kept reply. */
const NUMBER_BYTES = 17

/**
 * Lua: what follows in the script is run once, even if the script is sent twice: then the first reply is returned again. `key`
 * and `argument`: the places in KEYS and ARGV of the reply key and of the number of the batch. The numbers of one process grow,
 * and a slot is used again only after the reply to its last batch has arrived. So a script with a lower number is a repetition
 * whose reply nobody waits for.
 *
 * A repetition has a blank and the ms since the first sending after the number. If the server was started after that, the
 * kept reply may be lost, and the script may have run: the repetition fails.
 *
 *   keepReply(reply)   returns the reply
 */
export function once(key: number, argument: number): string {
  return /* lua */ `
local replyKey, number, age = KEYS[${key}], string.match(ARGV[${argument}], '^(%d+) ?(%d*)$')
local last = string.match(redis.call('GETRANGE', replyKey, 0, ${NUMBER_BYTES - 1}), '^(%d+)\\n')
if last and tonumber(last) > tonumber(number) then return '' end
if last == number then return string.sub(redis.call('GET', replyKey), #last + 2) end
if age ~= '' then
  local info = redis.pcall('INFO', 'server')
  local uptime = type(info) == 'string' and string.match(info, 'uptime_in_seconds:(%d+)')
  if uptime and tonumber(uptime) * 1000 <= tonumber(age) + 1000 then
    return redis.error_reply('ERR The server was restarted after the request had been sent')
  end
end
local function keepReply(reply)
  redis.call('SET', replyKey, number .. '\\n' .. reply, 'PX', ${REPLY_TTL})
  return reply
end
`
}

/** Counts how often a request is sent: again after a reconnection, if there was no reply. */
export class CountedRequest implements Request {
  readonly #request: Request
  sent = 0

  constructor(request: Request) {
    this.#request = request
  }

  get key(): string | undefined {
    return this.#request.key
  }

  send(sender: CommandSender): Promise<unknown> {
    this.sent++
    return this.#request.send(sender)
  }
}

/** A request that says when it is sent again: a blank, and the ms since it was first sent. */
export class RepeatedRequest implements Request {
  readonly key: string | undefined
  readonly #clock: Clock
  readonly #make: (repetition: string) => Request
  #sentAt: number | undefined

  constructor(key: string | undefined, clock: Clock, make: (repetition: string) => Request) {
    this.key = key
    this.#clock = clock
    this.#make = make
  }

  send(sender: CommandSender): Promise<unknown> {
    const now = this.#clock.now()
    const repetition = this.#sentAt === undefined ? '' : ` ${Math.ceil(now - this.#sentAt)}`
    this.#sentAt ??= now
    return this.#make(repetition).send(sender)
  }
}

/**
 * Numbers the batches of a process, and gives each a slot: the place where its reply is kept, in case that it is sent twice.
 * A slot is used again after the reply has arrived. After an error it is not, since the batch may still take effect.
 */
export class ReplySlots {
  readonly #free: number[] = []
  #slots = 0
  #batches = 0

  take(): { slot: number; number: number } {
    return { slot: this.#free.pop() ?? this.#slots++, number: ++this.#batches }
  }

  release(slot: number): void {
    this.#free.push(slot)
  }
}
