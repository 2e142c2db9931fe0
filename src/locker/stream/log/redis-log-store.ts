import { ownedBytes } from '../../../kernel/codec/binary.ts'
import type { Script } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import type { Hint } from '../../../kernel/redis/subscription.ts'
import type { Append, LogFollower, LogStatus, LogStore, ReadReply, ReadRequest } from './log-store.ts'
import { logScripts } from './scripts.ts'

/** Logs on Redis: each log is a Redis stream, each method one script. */
export class RedisLogStore implements LogStore {
  readonly #connection: Connection
  readonly #channelPrefix: string
  readonly #onCluster: string

  constructor(connection: Connection) {
    this.#connection = connection
    this.#channelPrefix = connection.inboxChannel.slice(0, -connection.inbox.id.length)
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
    const args = [...numbers, this.#channelPrefix, this.#onCluster, ...chunks]
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
