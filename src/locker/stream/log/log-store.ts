/**
 * Streams: the chunks of one grant are appended to a log, and every reader in every process reads that log.
 *
 * The record of the key (namespace `s` of the locker) decides who produces. The first caller is granted the lease. It
 * publishes a {@link StreamRecord} as progress, which names the log to read. At the end it publishes a StreamRecord as the
 * result: the number of chunks, and the failure if the work failed. Only the record decides that a stream is complete, so
 * a producer that was replaced completes nothing, whatever it still appends.
 *
 *     producer  granted ── record as progress ── append … append ── record as result, accepted ── done
 *                  └─ lease lost, log lost, Redis unavailable, no readers ── work aborted, lease released
 *     reader    locating ── log named ── reading ── result accepted ── reads up to its end ── done, or RemoteError
 *                  │                        └─ another log named, or lease granted: the producer is dead
 *                  │                             nothing delivered yet: reads the other log, or produces
 *                  │                             chunks delivered: StreamInterruptedError
 *                  └─ lease granted ── produces, and is the first reader of its own log
 *
 * Log: its name is `<prefix>:1:x/<digest of the key>/<fence>`. A late producer appends to its own log, which no record
 * names any more. On Redis a log is a Redis stream. Chunk n (from 0) is the entry with the id n + 1, so an append that is
 * sent twice takes effect once, and a reader that was disconnected resumes after the last chunk it has.
 *
 * Followers: each process that follows a log is a consumer group of that Redis stream, named by its inbox id and a nonce.
 * An append notifies every follower in the same atomic step; the message carries the chunks if they are small. A message
 * is a hint: a follower also polls the log, and reads it after the subscription was restored. Every script has one key,
 * so a log may be on any node of a cluster.
 *
 * Cap (`maxBytes`): beyond it the log keeps only the newest chunks. Its beginning is gone, so no reader may join; a later
 * caller runs its own unshared work, which later callers in its process join. A reader that is further behind than the
 * log reaches is interrupted. Readers do not slow down the producer, with one exception: while no other process follows,
 * it does not trim chunks that the foremost reader of its own process has not read.
 *
 * Loss: a producer that is stopped discards its log, so no reader starts on a log that never ends. The log of a producer
 * that died stays named until its lease expires.
 *
 * Expiry: a log expires {@link LOG_GRACE} after its producer last wrote or retained it. A complete log expires after its
 * `ttl` plus LOG_GRACE. A read retains the log for LOG_GRACE.
 */

/** One append to a log. */
export interface Append {
  /** Number of the first of `chunks`. */
  from: number
  /** At least one. */
  chunks: readonly Buffer[]
  /** Chunks with a smaller number may be trimmed; 0: none. */
  trimBefore: number
  /** The log does not expire before this time has passed, ms. */
  retainFor: number
}

/** One read of a log. */
export interface ReadRequest {
  /** Number of the first chunk to read. */
  from: number
  /** Registers this process as a follower under this nonce. It must {@link LogStore.listen} to the nonce first. */
  followerNonce: string | undefined
}

export type ReadReply =
  /** The chunks from `from` on, as many as one reply may hold. `more`: the log has further chunks. */
  | { status: 'read'; chunks: Buffer[]; more: boolean }
  /** Chunk `from` was trimmed: the log begins later. */
  | { status: 'trimmed' }
  /** The log does not exist. */
  | { status: 'missing' }

/** What the producer learns of its log. */
export interface LogStatus {
  /** False when the log does not hold what its producer wrote: it was lost, in whole or at its end. */
  intact: boolean
  /** Number of processes that follow the log. */
  followers: number
}

/** Receives the messages of a log. */
export interface LogFollower {
  /**
   * Chunks were appended, from number `from` on; the log has `length` chunks now. `chunks` is empty when they are too
   * large for a message.
   */
  onAppended(from: number, chunks: readonly Buffer[], length: number): void
}

/**
 * The port: each method that takes a log is one atomic step. `unavailableAfter` is the longest silence of Redis, ms.
 * Promises reject with UnavailableError, OverloadedError or ClosedError when the store cannot be used.
 */
export interface LogStore {
  /** Appends chunks and notifies the followers. Appending the same chunks again has no effect on the log. */
  append(log: string, append: Append, unavailableAfter: number): Promise<LogStatus>
  /**
   * Reads at most {@link READ_CHUNKS} chunks and, beyond the first, {@link READ_BYTES}. With a follower and from 0, a log
   * that does not exist is created: a follower may register before the first append.
   */
  read(log: string, request: ReadRequest, unavailableAfter: number): Promise<ReadReply>
  /** Keeps the log from expiring for `ms`. `intact` is false when it does not exist. */
  retain(log: string, ms: number, unavailableAfter: number): Promise<LogStatus>
  /** Deletes the log, if no process follows it or `force` is set. Resolves to whether it is gone. */
  discard(log: string, force: boolean, unavailableAfter: number): Promise<boolean>
  /** Removes a follower. */
  unfollow(log: string, followerNonce: string, unavailableAfter: number): Promise<void>

  /** Whether messages arrive at present. */
  readonly subscribed: boolean
  /** Passes messages for a nonce to a follower until {@link ignore}. */
  listen(nonce: string, follower: LogFollower): void
  ignore(nonce: string): void
  /** Calls `changed` when the subscription is lost or restored. Returns a function that removes the callback. */
  onSubscriptionChange(changed: () => void): () => void
}

/** A log is retained for this time after its last use by a producer or a reader, ms. */
export const LOG_GRACE: number = 60_000

/** Most chunks and bytes that one read returns. */
export const READ_CHUNKS: number = 128
export const READ_BYTES: number = 256 * 1024
