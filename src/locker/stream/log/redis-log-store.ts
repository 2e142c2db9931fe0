import { ownedBytes } from '../../../kernel/codec/binary.ts'
import { FORMAT, ID_LENGTH, MESSAGE_LIMIT } from '../../../kernel/keys.ts'
import { Script } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import type { Hint } from '../../../kernel/redis/subscription.ts'
import {
  type Append,
  LOG_GRACE,
  type LogFollower,
  type LogStatus,
  type LogStore,
  READ_BYTES,
  READ_CHUNKS,
  type ReadReply,
  type ReadRequest,
} from './log-store.ts'

/**
 * A log is a Redis stream. Chunk n is the entry `<n + 1>-0` with one field, `c`. Each follower is a consumer group of it,
 * named by the id of its inbox and its nonce.
 */
const HELPERS = /* lua */ `
local LOG = KEYS[1]
local function int(x) return string.format('%.0f', x) end
local function entry_number(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function chunk_of(entry) return entry[2][2] end
local function retain(ms)
  if redis.call('PTTL', LOG) < ms then redis.call('PEXPIRE', LOG, int(ms)) end
end
-- XINFO lists field names and values in turn; the name of a group comes first.
local GROUP_NAME = 2
local function list_followers()
  local followers, groups = {}, redis.pcall('XINFO', 'GROUPS', LOG)
  if groups.err then return followers end
  for _, group in ipairs(groups) do followers[#followers + 1] = group[GROUP_NAME] end
  return followers
end`

/**
 * KEYS    the log
 * ARGV    from, trim before (0: nothing), retain for (ms), prefix of inbox channels, '1' on a cluster, chunks …
 * returns { 1 intact or 0, followers }
 */
const APPEND = /* lua */ `${HELPERS}
local from, trim_before, retain_for = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local channel_prefix, on_cluster = ARGV[4], ARGV[5] == '1'
local FIRST_CHUNK = 6
local last = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
local length = last and entry_number(last) or 0
if length < from then return { 0, 0 } end
local followers = list_followers()
local sizes, bytes = {}, 0
for i = FIRST_CHUNK, #ARGV do
  local entry = from + i - FIRST_CHUNK + 1
  if entry > length then redis.call('XADD', LOG, int(entry), 'c', ARGV[i]) end
  sizes[#sizes + 1] = #ARGV[i]
  bytes = bytes + #ARGV[i]
end
if trim_before > 0 then redis.call('XTRIM', LOG, 'MINID', '=', int(trim_before + 1)) end
retain(retain_for)
local message
if bytes <= ${MESSAGE_LIMIT} then
  message = 'c ' .. int(from) .. ' ' .. table.concat(sizes, ' ') .. '\\n' .. table.concat(ARGV, '', FIRST_CHUNK)
else
  message = 'm ' .. int(from + #sizes)
end
local removed = 0
for _, follower in ipairs(followers) do
  local inbox, nonce = string.sub(follower, 1, ${ID_LENGTH}), string.sub(follower, ${ID_LENGTH + 1})
  local receivers = redis.pcall('PUBLISH', channel_prefix .. inbox, '${FORMAT}' .. nonce .. message)
  -- A cluster does not count receivers on other nodes.
  if receivers == 0 and not on_cluster then
    redis.call('XGROUP', 'DESTROY', LOG, follower)
    removed = removed + 1
  end
end
return { 1, #followers - removed }
`

/**
 * KEYS    the log
 * ARGV    from, follower (inbox id and nonce) or ''
 * returns { status, chunks … }; status: 0 read, 1 read and there is more, 2 trimmed, 3 missing
 */
const READ = /* lua */ `${HELPERS}
local from, follower = tonumber(ARGV[1]), ARGV[2]
local READ_TO_END, READ_MORE, TRIMMED, MISSING = 0, 1, 2, 3
local STATUS, PAGE = 1, 16
if redis.call('EXISTS', LOG) == 0 and (from > 0 or follower == '') then return { MISSING } end
local reply, bytes, more = { READ_TO_END }, 0, true
while more do
  -- The reply holds the status too, so its length is one more than the number of chunks.
  local page = redis.call('XRANGE', LOG, int(from + #reply), '+', 'COUNT', PAGE)
  more = #page == PAGE
  for _, entry in ipairs(page) do
    if entry_number(entry) ~= from + #reply then return { TRIMMED } end
    local chunk = chunk_of(entry)
    if #reply > ${READ_CHUNKS} or (#reply > 1 and bytes + #chunk > ${READ_BYTES}) then
      reply[STATUS], more = READ_MORE, false
      break
    end
    bytes = bytes + #chunk
    reply[#reply + 1] = chunk
  end
end
-- May fail because memory is out, or the group exists. The chunks are returned anyway.
if follower ~= '' then redis.pcall('XGROUP', 'CREATE', LOG, follower, '$', 'MKSTREAM') end
retain(${LOG_GRACE})
return reply
`

/**
 * KEYS    the log
 * ARGV    ms
 * returns { 1 exists or 0, followers }
 */
const RETAIN = /* lua */ `${HELPERS}
local ms = tonumber(ARGV[1])
if redis.call('EXISTS', LOG) == 0 then return { 0, 0 } end
retain(ms)
return { 1, #list_followers() }
`

/**
 * KEYS    the log
 * ARGV    '1': even if it has followers
 * returns 1 gone or 0
 */
const DISCARD = /* lua */ `${HELPERS}
local force = ARGV[1] == '1'
if not force and #list_followers() > 0 then return 0 end
redis.call('UNLINK', LOG)
return 1
`

/**
 * KEYS    the log
 * ARGV    follower (inbox id and nonce)
 * returns 1
 */
const UNFOLLOW = /* lua */ `
local LOG, follower = KEYS[1], ARGV[1]
redis.pcall('XGROUP', 'DESTROY', LOG, follower)
return 1
`

/** The scripts of a log, one for each atomic step of the port. */
export const logScripts: Record<'append' | 'read' | 'retain' | 'discard' | 'unfollow', Script> = {
  append: new Script(APPEND),
  read: new Script(READ),
  retain: new Script(RETAIN),
  discard: new Script(DISCARD),
  unfollow: new Script(UNFOLLOW),
}

/** Logs on Redis: each log is a Redis stream, each method one script. */
export class RedisLogStore implements LogStore {
  readonly #connection: Connection
  readonly #onCluster: string

  constructor(connection: Connection) {
    this.#connection = connection
    this.#onCluster = connection.cluster ? '1' : '0'
  }

  get subscribed(): boolean {
    return this.#connection.subscribed
  }

  async #call(
    script: Script,
    log: string,
    args: readonly (string | Buffer)[],
    unavailableAfter: number,
  ): Promise<unknown[]> {
    const reply = await this.#connection.call(script.with([log], args), unavailableAfter)
    return Array.isArray(reply) ? reply : [reply]
  }

  async append(
    log: string,
    { from, chunks, trimBefore, retainFor }: Append,
    unavailableAfter: number,
  ): Promise<LogStatus> {
    const numbers = [String(from), String(trimBefore), String(retainFor)]
    const args = [...numbers, this.#connection.inboxPrefix, this.#onCluster, ...chunks]
    return statusOf(await this.#call(logScripts.append, log, args, unavailableAfter))
  }

  async read(
    log: string,
    { from, followerNonce }: ReadRequest,
    unavailableAfter: number,
  ): Promise<ReadReply> {
    const follower = followerNonce === undefined ? '' : this.#connection.inbox.id + followerNonce
    const args = [String(from), follower]
    const [status, ...chunks] = await this.#call(logScripts.read, log, args, unavailableAfter)
    if (Number(status) === 2) return { status: 'trimmed' }
    if (Number(status) === 3) return { status: 'missing' }
    return { status: 'read', chunks: (chunks as Buffer[]).map(ownedBytes), more: Number(status) === 1 }
  }

  async retain(log: string, ms: number, unavailableAfter: number): Promise<LogStatus> {
    return statusOf(await this.#call(logScripts.retain, log, [String(ms)], unavailableAfter))
  }

  async discard(log: string, force: boolean, unavailableAfter: number): Promise<boolean> {
    const [gone] = await this.#call(logScripts.discard, log, [force ? '1' : '0'], unavailableAfter)
    return Number(gone) === 1
  }

  async unfollow(log: string, followerNonce: string, unavailableAfter: number): Promise<void> {
    const follower = this.#connection.inbox.id + followerNonce
    await this.#call(logScripts.unfollow, log, [follower], unavailableAfter)
  }

  listen(nonce: string, follower: LogFollower): void {
    this.#connection.inbox.listen(nonce, { hint: (hint) => deliver(hint, follower) })
  }

  ignore(nonce: string): void {
    this.#connection.inbox.ignore(nonce)
  }

  onSubscriptionChange(changed: () => void): () => void {
    return this.#connection.listen({ up: changed, down: changed, broadcast() {} })
  }
}

function statusOf([intact, followers]: unknown[]): LogStatus {
  return { intact: Number(intact) === 1, followers: Number(followers) }
}

/** Passes a message on. Drops a message whose numbers do not fit together: anybody may have sent it. */
function deliver({ kind, fields, body }: Hint, follower: LogFollower): void {
  const [from = Number.NaN, ...sizes] = fields.map(Number)
  if (![from, ...sizes].every((number) => Number.isSafeInteger(number) && number >= 0)) return
  if (kind === 'm') return follower.onAppended(from, [], from)
  if (kind !== 'c' || sizes.reduce((sum, size) => sum + size, 0) !== body.length) return
  const chunks: Buffer[] = []
  // One copy for all chunks of the message: readers keep them.
  const owned = ownedBytes(body)
  let at = 0
  for (const size of sizes) {
    chunks.push(owned.subarray(at, at + size))
    at += size
  }
  follower.onAppended(from, chunks, from + chunks.length)
}
