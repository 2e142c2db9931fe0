import { ownedBytes } from '../../../kernel/codec/binary.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import type { Hint } from '../../../kernel/redis/inbox.ts'
import type { Script } from '../../../kernel/redis/script.ts'
import type { Append, LogFollower, LogStore, Read, ReadReply } from './log-store.ts'
import { logScripts } from './scripts.ts'

/** Logs on Redis: each is one stream, and everything that is done to it one script. */
export class RedisLogs implements LogStore {
  readonly #connection: Connection
  readonly #channels: string
  readonly #cluster: string

  constructor(connection: Connection) {
    this.#connection = connection
    this.#channels = connection.inboxChannel.slice(0, -connection.inbox.id.length)
    this.#cluster = connection.cluster ? '1' : '0'
  }

  get subscribed(): boolean {
    return this.#connection.subscribed
  }

  async #call(
    script: Script,
    log: string,
    args: readonly (string | Buffer)[],
    within: number,
  ): Promise<unknown[]> {
    const reply = await this.#connection.call(script.with([log], args), within)
    return Array.isArray(reply) ? reply : [reply]
  }

  async append(
    log: string,
    { from, chunks, first, keep }: Append,
    within: number,
  ): Promise<{ kept: boolean; followers: number }> {
    const args = [String(from), String(first), String(keep), this.#channels, this.#cluster, ...chunks]
    const [kept, followers] = await this.#call(logScripts.append, log, args, within)
    return { kept: Number(kept) === 1, followers: Number(followers) }
  }

  async read(log: string, { from, follower }: Read, within: number): Promise<ReadReply> {
    const park = follower === undefined ? '' : this.#connection.inbox.id + follower
    const [status, ...chunks] = await this.#call(logScripts.read, log, [String(from), park], within)
    if (Number(status) === 2) return { status: 'trimmed' }
    if (Number(status) === 3) return { status: 'gone' }
    return { status: 'read', chunks: (chunks as Buffer[]).map(ownedBytes), more: Number(status) === 1 }
  }

  async keep(log: string, ms: number, within: number): Promise<{ kept: boolean; followers: number }> {
    const [kept, followers] = await this.#call(logScripts.keep, log, [String(ms)], within)
    return { kept: Number(kept) === 1, followers: Number(followers) }
  }

  async forget(log: string, anyway: boolean, within: number): Promise<boolean> {
    const [gone] = await this.#call(logScripts.forget, log, [anyway ? '1' : '0'], within)
    return Number(gone) === 1
  }

  async unfollow(log: string, follower: string, within: number): Promise<void> {
    await this.#call(logScripts.unfollow, log, [this.#connection.inbox.id + follower], within)
  }

  listen(nonce: string, follower: LogFollower): void {
    this.#connection.inbox.listen(nonce, { hint: (hint) => deliver(hint, follower) })
  }

  ignore(nonce: string): void {
    this.#connection.inbox.ignore(nonce)
  }

  onLink(changed: () => void): () => void {
    return this.#connection.listen({ up: changed, down: changed, broadcast() {} })
  }
}

/** Reads a message. One whose numbers do not fit together is none. */
function deliver({ kind, fields, body }: Hint, follower: LogFollower): void {
  const [from = Number.NaN, ...sizes] = fields.map(Number)
  if (![from, ...sizes].every((number) => Number.isSafeInteger(number) && number >= 0)) return
  if (kind === 'm') return follower.appended(from, [], from)
  if (kind !== 'c' || sizes.reduce((sum, size) => sum + size, 0) !== body.length) return
  const chunks: Buffer[] = []
  // Readers keep chunks: those of one message together.
  const kept = ownedBytes(body)
  let at = 0
  for (const size of sizes) {
    chunks.push(kept.subarray(at, at + size))
    at += size
  }
  follower.appended(from, chunks, from + chunks.length)
}
